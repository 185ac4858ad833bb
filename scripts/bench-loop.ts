/**
 * What the daemon itself costs an experiment: real git, journal and ledger, with a judge and an agent that do nothing.
 * npm run bench:loop -- [experiments, 10000 unless told]
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { median } from '../src/core/report.ts'
import { manyExperiments } from '../test/support/many-experiments.ts'

const count = Number(process.argv[2] ?? 10_000)
const folder = mkdtempSync(join(tmpdir(), 'autokernel-bench-loop-'))
try {
  const costs = await manyExperiments(folder, count, true)
  const tenth = Math.max(1, Math.floor(count / 10))
  console.log(`experiments ${count}; own time per experiment, everything but judge and agent (median of each tenth):`)
  for (let i = 0; i + tenth <= costs.length; i += tenth) {
    const part = costs.slice(i, i + tenth)
    const { heapMb = 0, files = 0 } = part.at(-1) ?? {}
    const ms = median(part.map((cost) => cost.ms)).toFixed(2)
    console.log(
      `  ${String(i + 1).padStart(6)} to ${String(i + tenth).padStart(6)}  ${ms} ms  heap ${heapMb.toFixed(0)} MB  ${files} files open`,
    )
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}
