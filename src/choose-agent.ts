/** --agent and the keys in the environment -> who has the ideas. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { anthropicAgent, DEFAULT_ANTHROPIC_MODEL } from './agents/anthropic.ts'
import { chainAgent } from './agents/chain.ts'
import { commandAgent } from './agents/command.ts'
import { inboxAgent } from './agents/inbox.ts'
import { DEFAULT_OPENAI_MODEL, openaiAgent } from './agents/openai.ts'
import { replayAgent } from './agents/replay.ts'
import { searchAgent } from './agents/search.ts'
import { priceFor } from './core/prices.ts'
import { normalizedHash } from './core/source-hash.ts'
import { readJournal } from './effects/journal.ts'
import { UsageError } from './errors.ts'
import type { Io } from './io.ts'
import type { Options } from './options.ts'
import { findRun, type RunFolder } from './run-folder.ts'
import type { Agent, Proposal } from './types.ts'

export type Chosen = {
  agent: Agent
  /** Tells whoever dropped the source in the inbox what came of it. */
  tell: (source: string, verdict: string) => Promise<void>
  close: () => Promise<void>
}

/** Why no more money may be spent, or null while it may. */
export type Spent = () => string | null

/** Refuses a name that no agent has, before anything slow begins. */
export function checkAgents(list: string | undefined): void {
  const unknown = list?.split(',').find((name) => !/^(search|anthropic|openai|command|inbox|replay:.+)$/.test(name.trim()))
  if (unknown !== undefined) {
    throw new UsageError(`--agent: expected search, anthropic, openai, command, inbox or replay:RUN, got '${unknown.trim()}'`)
  }
}

export async function chooseAgent(options: Options, io: Io, folder: RunFolder, spent: Spent): Promise<Chosen> {
  const list = options.agent ?? (io.env.ANTHROPIC_API_KEY ? 'anthropic' : 'search')
  if (options.agent === undefined) {
    io.say(
      list === 'anthropic'
        ? 'agent: anthropic, because ANTHROPIC_API_KEY is set (--agent search needs no key)'
        : 'agent: search over the kernels’ marked constants, because no ANTHROPIC_API_KEY is set',
    )
  }
  const members = await Promise.all(list.split(',').map((name) => one(name.trim(), options, io, folder, spent)))
  const close = async () => void (await Promise.all(members.map((m) => m.close())))
  const [only, ...others] = members.map((m) => m.agent)
  if (!only) throw new UsageError('--agent: expected a list of search, anthropic, openai, command, inbox, replay:RUN')
  const tell = async (source: string, verdict: string) => void (await Promise.all(members.map((m) => m.tell(source, verdict))))
  return { agent: others.length === 0 ? only : chainAgent([only, ...others]), tell, close }
}

async function one(name: string, options: Options, io: Io, folder: RunFolder, spent: Spent): Promise<Chosen> {
  const stays = async () => {}
  const plain = (agent: Agent): Chosen => ({ agent, tell: stays, close: stays })
  const record = (file: string, content: unknown) => {
    mkdirSync(folder.llm, { recursive: true })
    writeFileSync(join(folder.llm, `${file}.json`), `${JSON.stringify(content, null, 1)}\n`)
  }
  const shared = { editFormat: options['edit-format'], onRateLimit: options['on-rate-limit'], spent, record }
  if (name === 'search') return plain(searchAgent)
  if (name === 'anthropic') {
    const model = priced(options['llm-model'] ?? DEFAULT_ANTHROPIC_MODEL, options)
    return plain(anthropicAgent({ ...shared, model, apiKey: key('ANTHROPIC_API_KEY', name, io), baseURL: io.env.ANTHROPIC_BASE_URL }))
  }
  if (name === 'openai') {
    const model = priced(options['llm-model'] ?? DEFAULT_OPENAI_MODEL, options)
    const baseURL = options['llm-base-url']
    // A server of one's own seldom wants a key; the SDK does.
    const apiKey = baseURL && !io.env.OPENAI_API_KEY ? 'none' : key('OPENAI_API_KEY', name, io)
    return plain(openaiAgent({ ...shared, model, apiKey, baseURL }))
  }
  if (name === 'command') {
    if (options.command === undefined)
      throw new UsageError('--agent command: expected --command with the program to run, such as --command "claude -p"')
    return plain(commandAgent({ command: options.command, scratch: join(folder.root, 'scratch') }))
  }
  if (name === 'inbox') return inbox(folder, options)
  const replayed = /^replay:(.+)$/.exec(name)?.[1]
  if (replayed) return plain(replayAgent(await recordedProposals(io, replayed)))
  throw new Error(`checkAgents let '${name}' pass`)
}

async function inbox(folder: RunFolder, options: Options): Promise<Chosen> {
  const { agent, nameOf, verdict, close } = await inboxAgent({ folder: folder.inbox, idleMs: options['inbox-idle'] ?? null })
  const tell = async (source: string, text: string) => {
    const name = nameOf(normalizedHash(source))
    if (name !== null) await verdict(name, text)
  }
  return { agent, tell, close }
}

function key(variable: string, agent: string, io: Io): string {
  const value = io.env[variable]
  if (!value) throw new UsageError(`--agent ${agent}: expected ${variable} in the environment, found none; set it, or use --agent search`)
  return value
}

function priced(model: string, options: Options): string {
  if (options['max-cost'] !== undefined && priceFor(model) === null) {
    throw new UsageError(
      `--max-cost: the price of '${model}' is not known, so a limit could not be kept; use --max-tokens, or give its price in the user config`,
    )
  }
  return model
}

async function recordedProposals(io: Io, run: string): Promise<Proposal[]> {
  const { events } = await readJournal(findRun(io.cwd, run).events)
  return events.flatMap((event) => (event.type === 'answered' && event.answer.kind === 'proposal' ? [event.answer.proposal] : []))
}
