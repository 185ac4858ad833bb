/** --agent and the keys, from the environment or --key-command -> who has the ideas. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { agentNames, type Keys, keyFor, modelOf, openaiUrl } from './agent-list.ts'
import { chainAgent } from './agents/chain.ts'
import { commandAgent } from './agents/command.ts'
import type { Notes } from './agents/conversation.ts'
import { inboxAgent } from './agents/inbox.ts'
import { replayAgent } from './agents/replay.ts'
import { searchAgent } from './agents/search.ts'
import { userPrices } from './config.ts'
import { readJournal } from './effects/journal.ts'
import { UsageError } from './errors.ts'
import type { Io } from './io.ts'
import type { Options } from './options.ts'
import type { Agent } from './ports.ts'
import { findRun, type RunFolder } from './run-folder.ts'
import type { Bill, Proposal } from './types.ts'

export type Chosen = {
  agent: Agent
  /** Tells whoever dropped the source in the inbox what came of it. */
  tell: (sourceHash: string, verdict: string) => Promise<void>
  close: () => Promise<void>
}

/** Why no more money may be spent, or null while it may; `used` is not in the run's books yet. */
export type Spent = (used: Bill) => string | null

/** `options` as settleAgents left them, `keys` from askKeys. */
export async function chooseAgent(options: Options, keys: Keys, io: Io, folder: RunFolder, spent: Spent): Promise<Chosen> {
  const names = agentNames(options.agent ?? 'search')
  const members = await Promise.all(names.map((name) => one(name, options, keys, io, folder, spent)))
  const close = async () => void (await Promise.all(members.map((m) => m.close())))
  const [first, ...others] = members.map((m) => m.agent)
  if (!first) throw new UsageError('--agent: expected a list of search, anthropic, openai, command, inbox, replay:RUN')
  const tell = async (hash: string, verdict: string) => void (await Promise.all(members.map((m) => m.tell(hash, verdict))))
  return { agent: chainAgent([first, ...others]), tell, close }
}

async function one(name: string, options: Options, keys: Keys, io: Io, folder: RunFolder, spent: Spent): Promise<Chosen> {
  const stays = async () => {}
  const plain = (agent: Agent): Chosen => ({ agent, tell: stays, close: stays })
  if (name === 'search') return plain(searchAgent)
  if (name === 'inbox') return inbox(folder, options)
  if (name === 'command') {
    const limits = options['agent-timeout'] === undefined ? {} : { timeoutMs: options['agent-timeout'] }
    return plain(commandAgent({ command: options.command ?? '', scratch: join(folder.root, 'scratch'), ...limits }))
  }
  const replayed = /^replay:(.+)$/.exec(name)?.[1]
  if (replayed) return plain(replayAgent(await recordedProposals(io, replayed)))
  if (name !== 'anthropic' && name !== 'openai') throw new Error(`settleAgents let '${name}' pass`)
  const shared = {
    model: modelOf(name, options),
    apiKey: keyFor(name, options, io, keys),
    editFormat: options['edit-format'],
    onRateLimit: options['on-rate-limit'],
    effort: options.effort,
    maxOutputTokens: options['max-output-tokens'],
    prices: userPrices(io.env),
    spent,
    notes: notesIn(folder.llm),
  }
  // Loaded when named: a provider's package is hundreds of files, and without them a start takes half as long.
  if (name === 'anthropic') {
    const { anthropicAgent } = await import('./agents/anthropic.ts')
    return plain(anthropicAgent({ ...shared, baseURL: io.env.ANTHROPIC_BASE_URL || undefined }))
  }
  const { openaiAgent } = await import('./agents/openai.ts')
  return plain(openaiAgent({ ...shared, baseURL: openaiUrl(options, io) }))
}

async function inbox(folder: RunFolder, options: Options): Promise<Chosen> {
  const { agent, nameOf, verdict, close } = await inboxAgent({ folder: folder.inbox, idleMs: options['inbox-idle'] ?? null })
  const tell = async (hash: string, text: string) => {
    const name = nameOf(hash)
    if (name !== null) await verdict(name, text)
  }
  return { agent, tell, close }
}

function notesIn(folder: string): Notes {
  const at = (name: string) => join(folder, `${name}.json`)
  return {
    write: (name, content) => {
      mkdirSync(folder, { recursive: true })
      writeFileSync(at(name), `${JSON.stringify(content, null, 1)}\n`)
    },
    read: (name) => {
      try {
        return JSON.parse(readFileSync(at(name), 'utf8'))
      } catch {
        return null // never written, or cut short by a crash: then it is asked again
      }
    },
  }
}

async function recordedProposals(io: Io, run: string): Promise<Proposal[]> {
  const { events } = await readJournal(findRun(io.cwd, run).events)
  return events.flatMap((event) => (event.type === 'answered' && event.answer.kind === 'proposal' ? [event.answer.proposal] : []))
}
