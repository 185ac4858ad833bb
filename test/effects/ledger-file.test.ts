import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { formatRow, HEADER } from '../../src/core/ledger.ts'
import { LedgerFile } from '../../src/effects/ledger-file.ts'
import { UsageError } from '../../src/errors.ts'
import type { Row } from '../../src/row.ts'
import { tempFolder } from './temp.ts'

const row = (experiment: number, change: Partial<Row> = {}): Row => ({
  run: 'night-1',
  experiment,
  time: '2026-11-20T22:00:00.000Z',
  commit: '0123456789abcdef0123456789abcdef01234567',
  parent: null,
  kernel: 'rmsnorm',
  backend: 'cpp',
  dtype: 'fp32',
  shape: '512x768',
  status: experiment === 0 ? 'baseline' : 'discard',
  latencyUs: 30.7,
  ci95Us: 0.2,
  throughput: '21 GB/s',
  speedupIncumbent: 1,
  speedupBestBaseline: null,
  speedupEager: 2,
  pctPeak: 40,
  maxAbsErr: 1e-6,
  peakVramMb: null,
  wallS: 2,
  costUsd: 0,
  agent: 'search',
  description: 'BLOCK = 1024',
  ...change,
})

async function written(path: string, rows: Row[], run = 'night-1'): Promise<string> {
  const ledger = await LedgerFile.open(path, run)
  await Promise.all(rows.map((one) => ledger.append(one)))
  await ledger.close()
  return readFileSync(path, 'utf8')
}

const text = (...rows: Row[]): string => [HEADER, ...rows.map(formatRow), ''].join('\n')

it('starts with the header, appends whole rows, and goes on in an existing file', async () => {
  const path = join(tempFolder(), 'results.tsv')
  expect(await written(path, [row(0), row(1)])).toBe(text(row(0), row(1)))
  expect(await written(path, [row(1, { run: 'night-2' })], 'night-2')).toBe(text(row(0), row(1), row(1, { run: 'night-2' })))
})

it('writes a row once, however often a resumed run asks, and keeps baselines of several kernels apart', async () => {
  const path = join(tempFolder(), 'results.tsv')
  const other = row(0, { kernel: 'matmul-1' })
  await written(path, [row(0), other, row(1), row(1)])
  expect(await written(path, [row(0), other, row(1, { description: 'again' }), row(2)])).toBe(text(row(0), other, row(1), row(2)))
})

it.each([1, 8, 60])('heals a last row that a crash cut %i bytes short, and writes it again', async (lost) => {
  const path = join(tempFolder(), 'results.tsv')
  await written(path, [row(1), row(2)])
  truncateSync(path, readFileSync(path).length - lost)
  expect(await written(path, [row(2)])).toBe(text(row(1), row(2)))
})

it('heals a header that a crash cut short', async () => {
  const path = join(tempFolder(), 'results.tsv')
  writeFileSync(path, HEADER.slice(0, 20))
  expect(await written(path, [row(1)])).toBe(text(row(1)))
})

it("keeps another run's full row whose newline an editor dropped", async () => {
  const path = join(tempFolder(), 'results.tsv')
  writeFileSync(path, text(row(1, { run: 'old' })).trimEnd())
  expect(await written(path, [row(1)])).toBe(text(row(1, { run: 'old' }), row(1)))
})

it('refuses a file with other columns in one line, and leaves it as it is', async () => {
  const path = join(tempFolder(), 'results.tsv')
  for (const content of ['epoch\tloss\n1\t0.5\n', 'notes']) {
    writeFileSync(path, content)
    await expect(LedgerFile.open(path, 'night-1')).rejects.toThrow(UsageError)
    expect(readFileSync(path, 'utf8')).toBe(content)
  }
})
