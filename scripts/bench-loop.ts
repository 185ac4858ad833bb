/**
 * What the daemon itself costs an experiment: real git, journal and ledger, with a judge and an agent that do nothing.
 * npm run bench:loop -- [experiments, 10000 unless told]
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { initialState } from '../src/core/machine.ts'
import { median } from '../src/core/report.ts'
import { JournalFile } from '../src/effects/journal.ts'
import { LedgerFile } from '../src/effects/ledger-file.ts'
import { RunRepo } from '../src/effects/repo.ts'
import { findRepository } from '../src/effects/repository.ts'
import { Inbox } from '../src/inbox.ts'
import { runLoop } from '../src/loop.ts'
import { performer } from '../src/perform.ts'
import type { Agent, Evaluator, Happened, Run } from '../src/types.ts'
import { check, run as emptyRun, round, timing } from '../test/support/make.ts'

const count = Number(process.argv[2] ?? 10_000)
const KEEP_EVERY = 10

const folder = mkdtempSync(join(tmpdir(), 'autokernel-bench-loop-'))
try {
  const { times, memory } = await measure(folder, count)
  const tenth = Math.max(1, Math.floor(count / 10))
  console.log(`experiments ${count}; own time per experiment, everything but judge and agent (median of each tenth):`)
  for (let i = 0; i + tenth <= times.length; i += tenth) {
    console.log(
      `  ${String(i + 1).padStart(6)} to ${String(i + tenth).padStart(6)}  ${median(times.slice(i, i + tenth)).toFixed(2)} ms  heap ${(memory[i + tenth - 1] ?? 0).toFixed(0)} MB`,
    )
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}

async function measure(root: string, experiments: number): Promise<{ times: number[]; memory: number[] }> {
  execFileSync('git', ['init', '-q', root])
  writeFileSync(join(root, 'model.py'), '# a model\n')
  execFileSync('git', ['-C', root, 'add', '.'])
  execFileSync('git', ['-C', root, '-c', 'user.name=a', '-c', 'user.email=a@b', 'commit', '-qm', 'model'])
  const repo = await RunRepo.create(await findRepository(root), 'bench', join(root, '.autokernel', 'worktree'))
  const start = await repo.commitFiles({ 'optimized/rmsnorm/kernel.py': 'N = 0\n' }, 'start', '2026-01-01T00:00:00.000Z')
  const base = emptyRun(['rmsnorm'], { maxExperiments: experiments, maxDiscards: experiments + 1, peak: 1, targetSpeedup: 1e9 })
  const target = { ...(base.targets.rmsnorm as Run['targets'][string]), startCommit: start, incumbent: start }
  const run: Run = { ...base, best: start, targets: { rmsnorm: target } }

  let asked = 0
  const agent: Agent = {
    name: 'nothing',
    async propose(request) {
      const source = `N = ${++asked}\n`
      return {
        kind: 'proposal',
        proposal: {
          target: 'rmsnorm',
          basedOn: request.incumbent.commit,
          source,
          hypothesis: `N = ${asked}`,
          predictedGain: null,
          agent: 'nothing',
          disposable: false,
          thread: null,
          sweep: [],
          written: null,
          costUsd: 0,
          tokens: 0,
          turns: 0,
        },
      }
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
    async close() {},
  }
  const journal = await JournalFile.create(join(root, 'events.jsonl'), { format: 1, run: 'bench', start: {} })
  const ledger = await LedgerFile.open(join(root, 'results.tsv'), 'bench')
  const files = { fileOf: async () => 'nowhere', withFiles: () => Promise.reject(new Error('nothing here is swept')) }
  const perform = performer({ evaluator, agent, repo, ledger, ...files, playbook: () => '', steer: () => '' })
  const times: number[] = []
  const memory: number[] = []
  let last = performance.now()
  let seq = 0
  await runLoop(initialState(run), new Inbox<Happened>(), {
    journal,
    clock: { stamp: (happened) => ({ ...happened, seq: seq++, at: Math.round(performance.now()), wall: new Date().toISOString() }) },
    perform,
    observe: (event) => {
      if (event.type !== 'settled') return
      const now = performance.now()
      times.push(now - last)
      last = now
      memory.push(process.memoryUsage().heapUsed / 1e6)
    },
  })
  await journal.close()
  await ledger.close()
  return { times, memory }
}
