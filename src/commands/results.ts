/** autokernel results: the ledger, readable. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type LedgerRow, parseLedger } from '../core/ledger.ts'
import { UsageError } from '../errors.ts'
import { type Io, table } from '../io.ts'
import type { Options } from '../options.ts'

const SHOWN = [
  'experiment',
  'kernel',
  'shape',
  'status',
  'latency_us',
  'speedup_incumbent',
  'speedup_best_baseline',
  'pct_peak',
  'agent',
  'description',
]

export async function results(options: Options, io: Io): Promise<number> {
  const path = join(io.cwd, 'results.tsv')
  if (!existsSync(path)) throw new UsageError(`expected ${path}, found none; runs write it: autokernel optimize --model FILE`)
  const { rows, torn } = parseLedger(readFileSync(path, 'utf8'))
  const mine = options.run === undefined ? rows : rows.filter((row) => row.run === options.run)
  if (options.run !== undefined && mine.length === 0) throw new UsageError(`--run: results.tsv has no rows of '${options.run}'`)
  const shown = options.best ? bestOfEach(mine) : mine
  if (io.json) io.document(shown)
  else io.print(table([SHOWN, ...shown.map((row) => SHOWN.map((name) => (row[name] ?? '-').slice(0, 80)))]))
  if (torn > 0) io.say(`${torn} row${torn === 1 ? ' is' : 's are'} not whole and left out`)
  return 0
}

/** The fastest kept row of each kernel of each run. */
function bestOfEach(rows: LedgerRow[]): LedgerRow[] {
  const best = new Map<string, LedgerRow>()
  for (const row of rows.filter((r) => r.status === 'keep')) {
    const key = `${row.run} ${row.kernel}`
    if (Number(row.latency_us) < Number(best.get(key)?.latency_us ?? Number.POSITIVE_INFINITY)) best.set(key, row)
  }
  return [...best.values()]
}
