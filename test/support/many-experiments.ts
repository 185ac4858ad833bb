/** A run of thousands of experiments with real git, journal and ledger, and a judge and an agent that do nothing: what the daemon itself costs. */
import { execFileSync } from 'node:child_process'
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { initialState } from '../../src/core/machine.ts'
import { FORMAT, JournalFile } from '../../src/effects/journal.ts'
import { LedgerFile } from '../../src/effects/ledger-file.ts'
import { RunRepo } from '../../src/effects/repo.ts'
import { findRepository } from '../../src/effects/repository.ts'
import { Inbox } from '../../src/inbox.ts'
import { runLoop } from '../../src/loop.ts'
import { performer } from '../../src/perform.ts'
import type { Agent, Evaluator, Repo } from '../../src/ports.ts'
import type { Happened, Run } from '../../src/types.ts'
import { check, run as emptyRun, proposal, round, sha, timing, uncounted } from './make.ts'

const KEEP_EVERY = 10

/** Of each experiment: its time, and the heap and the open files at its end. */
export type Cost = { ms: number; heapMb: number; files: number }

export async function manyExperiments(root: string, experiments: number, git: boolean): Promise<Cost[]> {
  const { repo, start } = git ? await realRepo(root) : { repo: noRepo(), start: sha(1) }
  const base = emptyRun(['rmsnorm'], { maxExperiments: experiments, maxDiscards: experiments + 1, peak: 1, targetSpeedup: 1e9 })
  const target = { ...(base.targets.rmsnorm as Run['targets'][string]), startCommit: start, incumbent: start }
  const run: Run = { ...base, best: start, targets: { rmsnorm: target } }

  let asked = 0
  const agent: Agent = {
    name: 'nothing',
    async propose({ incumbent }) {
      const idea = proposal('rmsnorm', `N = ${++asked}\n`, incumbent.commit)
      return { kind: 'proposal', proposal: { ...idea, hypothesis: `N = ${asked}`, disposable: false } }
    },
  }
  let checked = 0
  const evaluator: Evaluator = {
    async check() {
      checked++
      return check()
    },
    async time(_, sides, rounds) {
      const candidate = checked % KEEP_EVERY === 0 ? 90 : 110
      const us = Object.fromEntries(sides.map((side) => [side.name, side.name === 'candidate' ? candidate : 100]))
      return timing(Array.from({ length: rounds }, () => round(us)))
    },
    counters: uncounted,
    async close() {},
  }
  const journal = await JournalFile.create(join(root, 'events.jsonl'), { format: FORMAT, run: 'bench', start: {} })
  const ledger = await LedgerFile.open(join(root, 'results.tsv'), 'bench')
  const files = { fileOf: async () => 'nowhere', withFiles: () => Promise.reject(new Error('nothing here is swept')) }
  const perform = performer({ evaluator, agent, repo, ledger, ...files, playbook: () => '', steer: () => '' })
  const costs: Cost[] = []
  let last = performance.now()
  let seq = 0
  await runLoop(initialState(run), new Inbox<Happened>(), {
    journal,
    clock: { stamp: (happened) => ({ ...happened, seq: seq++, at: Math.round(performance.now()), wall: new Date().toISOString() }) },
    perform,
    observe: (event) => {
      if (event.type !== 'settled') return
      const now = performance.now()
      costs.push({ ms: now - last, heapMb: process.memoryUsage().heapUsed / 1e6, files: openFiles() })
      last = now
    },
  })
  await journal.close()
  await ledger.close()
  return costs
}

async function realRepo(root: string) {
  execFileSync('git', ['init', '-q', root])
  writeFileSync(join(root, 'model.py'), '# a model\n')
  execFileSync('git', ['-C', root, 'add', '.'])
  execFileSync('git', ['-C', root, '-c', 'user.name=a', '-c', 'user.email=a@b', 'commit', '-qm', 'model'])
  const repo = await RunRepo.create(await findRepository(root), 'bench', join(root, '.autokernel', 'worktree'))
  const start = await repo.commitFiles({ 'optimized/rmsnorm/kernel.py': 'N = 0\n' }, 'start', '2026-01-01T00:00:00.000Z')
  return { repo, start }
}

function noRepo(): Repo {
  let tip = sha(1)
  return {
    candidate: async (number) => sha(1_000_000 + number),
    keep: async ({ number }, _message, _wall, record) => {
      tip = sha(number + 1)
      await record(tip)
      return tip
    },
    reset: async () => tip,
    source: async () => 'N = 0\n',
  }
}

function openFiles(): number {
  try {
    return readdirSync('/proc/self/fd').length
  } catch {
    return 0 // no /proc
  }
}
