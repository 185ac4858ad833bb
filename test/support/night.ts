/** A run without Python: real git, journal, ledger and loop, real agents as --agent names them, and a judge that takes as long as it is told. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { askKeys, settleAgents } from '../../src/agent-list.ts'
import { type Chosen, chooseAgent } from '../../src/choose-agent.ts'
import { initialState } from '../../src/core/machine.ts'
import { replay } from '../../src/core/recover.ts'
import { FORMAT, JournalFile, readJournal } from '../../src/effects/journal.ts'
import { LedgerFile } from '../../src/effects/ledger-file.ts'
import { RunRepo } from '../../src/effects/repo.ts'
import { findRepository } from '../../src/effects/repository.ts'
import { withFiles } from '../../src/effects/temporary.ts'
import { Inbox } from '../../src/inbox.ts'
import { type Io, makeIo } from '../../src/io.ts'
import { runLoop } from '../../src/loop.ts'
import type { Options } from '../../src/options.ts'
import { performer } from '../../src/perform.ts'
import type { Agent, Evaluator, Repo } from '../../src/ports.ts'
import { RunClock } from '../../src/run-clock.ts'
import { makeRunFolder, type RunFolder } from '../../src/run-folder.ts'
import type { Check } from '../../src/schema.ts'
import type { Event, Happened, Rules, Run, State } from '../../src/types.ts'
import { check, run as emptyRun, round, sha, timing, uncounted } from './make.ts'
import { KERNEL } from './request.ts'
import { scratchFolder } from './scratch.ts'

export type Night = { root: string; state: State; events: Event[]; said: string }
export type Plan = {
  root: string
  agent: Agent | Options // an agent, or the flags that name one
  env?: NodeJS.ProcessEnv
  rules?: Partial<Rules>
  judgeMs?: number
  gitless?: boolean // where its milliseconds would count
  verdictOn?: (source: string) => Check['verdict']
  until?: (event: Event, state: State) => boolean // the daemon dies after this event, without a word
}

const NEVER_LEFT = { maxDiscards: 1e6, peak: 1e6, targetSpeedup: 1e6, kernelMs: 1e12, sweep: 0 }

export async function projectFolder(): Promise<string> {
  const root = await scratchFolder()
  execFileSync('git', ['init', '-q', root])
  writeFileSync(join(root, 'model.py'), '# a model\n')
  execFileSync('git', ['-C', root, 'add', '.'])
  execFileSync('git', ['-C', root, '-c', 'user.name=a', '-c', 'user.email=a@b', 'commit', '-qm', 'model'])
  return root
}

/** Starts run `night`, or resumes it where an earlier call left it. */
export async function night(plan: Plan): Promise<Night> {
  const { root, judgeMs = 0, verdictOn = () => 'pass' } = plan
  const folder = makeRunFolder(root, 'night')
  const opened = await openRun(root, { ...NEVER_LEFT, ...plan.rules })
  const { journal } = opened
  const repo = plan.gitless ? repoInMemory(opened.state.run) : opened.repo
  const ledger = await LedgerFile.open(join(root, 'results.tsv'), 'night')
  const said: string[] = []
  const io = {
    ...makeIo({ json: false, quiet: false, verbose: true, color: false, detached: false, cwd: root }, plan.env ?? {}),
    say: (text: string) => void said.push(text),
  }
  const chosen = 'propose' in plan.agent ? null : await choose(plan.agent, io, folder)
  const agent = chosen?.agent ?? (plan.agent as Agent)
  const events = [...opened.events]
  const inbox = new Inbox<Happened>()
  const clock = new RunClock(opened.state.run.elapsedMs, events.length, performance.now())
  const sources = new Map<string, string>()
  const perform = performer({
    evaluator: judge(judgeMs, (path) => verdictOn(sources.get(path) ?? '')),
    agent,
    repo,
    ledger,
    fileOf: async (commit, kernel) => {
      sources.set(`${commit}`, await repo.source(commit, kernel))
      return `${commit}`
    },
    withFiles: (texts, use) => withFiles(folder.candidates, texts, use),
    playbook: () => '',
    steer: () => '',
  })
  let died = false
  const end = (): never => {
    died = true
    throw new Error('the daemon died')
  }
  const observe = (event: Event, state: State): void => {
    events.push(event)
    if (plan.until?.(event, state)) end()
  }
  try {
    const state = await runLoop(opened.state, inbox, { journal, clock, perform, observe })
    return { root, state, events, said: said.join('\n') }
  } catch (error) {
    if (!died) throw error
    return { root, state: opened.state, events, said: said.join('\n') }
  } finally {
    await perform({ type: 'abort', what: 'all' }, opened.state)
    await chosen?.close()
    clock.close()
    await journal.close()
    await ledger.close()
  }
}

async function choose(flags: Options, io: Io, folder: RunFolder): Promise<Chosen> {
  const options = settleAgents(flags, io)
  return chooseAgent(options, await askKeys(options, io), io, folder, () => null)
}

/** Every file that is left in a folder, and what git keeps, as one text. */
export function everythingIn(root: string): string {
  const files = readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  const texts = files.map(({ parentPath, name }) => `${join(parentPath, name)}\n${readFileSync(join(parentPath, name), 'latin1')}`)
  const objects = execFileSync('git', ['-C', root, 'cat-file', '--batch-all-objects', '--batch'], { encoding: 'latin1', maxBuffer: 1e9 })
  return [...texts, objects].join('\n')
}

type OpenRun = { state: State; events: Event[]; journal: JournalFile; repo: Repo }

async function openRun(root: string, rules: Partial<Rules>): Promise<OpenRun> {
  const folder = makeRunFolder(root, 'night')
  const repository = await findRepository(root)
  const before = await readJournal(folder.events).catch(() => null)
  if (before) {
    const { journal, recorded } = await JournalFile.resume(folder.events)
    const { run } = recorded.header.start as { run: Run }
    return {
      state: replay(run, recorded.events),
      events: recorded.events,
      journal,
      repo: await RunRepo.open(repository, 'night', folder.worktree, replay(run, recorded.events).run.best),
    }
  }
  mkdirSync(folder.root, { recursive: true })
  const repo = await RunRepo.create(repository, 'night', folder.worktree)
  const start = await repo.commitFiles({ 'optimized/rmsnorm/kernel.py': KERNEL }, 'start', '2026-01-01T00:00:00.000Z')
  const base = emptyRun(['rmsnorm'], rules)
  const target = { ...(base.targets.rmsnorm as Run['targets'][string]), startCommit: start, incumbent: start }
  const run: Run = { ...base, name: 'night', best: start, targets: { rmsnorm: target } }
  const journal = await JournalFile.create(folder.events, { format: FORMAT, run: 'night', start: { run } })
  return { state: initialState(run), events: [], journal, repo }
}

/** Keeps candidates, and nothing else, since none is ever better. */
function repoInMemory(run: Run): Repo {
  const sources = new Map([[run.best, KERNEL]])
  return {
    candidate: async (number, { source }) => {
      sources.set(sha(number), source)
      return sha(number)
    },
    keep: () => Promise.reject(new Error('nothing is kept here')),
    reset: async () => run.best,
    source: async (commit) => sources.get(commit) ?? '',
  }
}

/** Half of the time for the check, half for the pair; every candidate that passes is slower than the incumbent. */
function judge(ms: number, verdictOn: (path: string) => Check['verdict']): Evaluator {
  const pause = (part: number) => new Promise((resolve) => setTimeout(resolve, part))
  return {
    check: async (_, path) => {
      await pause(ms / 2)
      const verdict = verdictOn(path)
      return check(verdict, verdict === 'pass' ? '' : `smoke: ${verdict}, says the judge`)
    },
    time: async (_, sides, rounds) => {
      await pause(ms / 2)
      const us = (name: string): number => (name === 'candidate' ? 110 : 100)
      return timing(Array.from({ length: rounds }, () => round(Object.fromEntries(sides.map(({ name }) => [name, us(name)])))))
    },
    counters: uncounted,
    close: async () => {},
  }
}
