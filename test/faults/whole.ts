/** What must hold of a run whatever happened to it: whole rows, and no kept commit without its row. */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { HEADER } from '../../src/core/ledger.ts'
import type { Night } from '../support/table-night.ts'
import type { Outcome } from '../support/world.ts'

const COLUMNS = HEADER.split('\t').length

export function expectWhole(night: Night): void {
  const { folder } = night.world
  const ledger = join(folder, 'results.tsv')
  const text = existsSync(ledger) ? readFileSync(ledger, 'utf8') : ''
  expect(text === '' || text.endsWith('\n'), `results.tsv ends in half a row: ${text.slice(-80)}`).toBe(true)
  const rows = text === '' ? [] : text.trimEnd().split('\n')
  for (const row of rows) expect(row.split('\t')).toHaveLength(COLUMNS)
  const kept = rows.filter((row) => row.split('\t')[9] === 'keep').map((row) => row.split('\t')[3])
  const commits = keptCommits(night).map((id) => id.slice(0, 12))
  // Its row is written first, so the last one may wait for its commit until the run is resumed.
  expect(kept.slice(0, commits.length)).toEqual(commits)
  expect(kept.length - commits.length).toBeLessThanOrEqual(existsSync(join(night.root, 'REPORT.md')) ? 0 : 1)
  execFileSync('git', ['fsck', '--connectivity-only'], { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] })
}

/** Exit code 3, and a last line that says why; no stack. */
export function expectClearEnd({ code, stderr }: Outcome, why: RegExp): void {
  expect(code, stderr).toBe(3)
  expect(stderr).not.toMatch(/^ {4}at /m)
  const last = stderr.trimEnd().split('\n').at(-1)
  expect(last).toMatch(/^autokernel: /)
  expect(last).toMatch(why)
}

/** On the run's branch, oldest first. */
export function keptCommits(night: Night): string[] {
  const { world } = night
  if (world.git('for-each-ref', '--format=%(refname)', `refs/heads/autokernel/${night.name}`) === '') return []
  const lines = world.git(
    'log',
    '--reverse',
    '--format=%H%x09%(trailers:key=Autokernel-Experiment,valueonly)',
    `main..autokernel/${night.name}`,
  )
  return lines
    .split('\n')
    .map((line) => line.split('\t'))
    .filter(([, experiment]) => experiment?.trim())
    .map(([id]) => id ?? '')
}

/** What came of a run, without what the clock put into it. */
export function outcome(night: Night): string[] {
  return night.world
    .rows()
    .map(({ experiment, kernel, status, latency_us, speedup_incumbent, agent, description }) =>
      [experiment, kernel, status, latency_us, speedup_incumbent, agent, description].join(' '),
    )
}
