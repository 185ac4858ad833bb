/** Records <-> rows of results.tsv: 23 columns, in this order, for scripts to rely on. */
import Papa from 'papaparse'
import type { Row } from '../row.ts'

type Column = { name: string; text: (row: Row) => string | null }

const plain = (text: string): string => text.replace(/[\s\p{Cc}"]+/gu, ' ').trim()
const fixed = (value: number | null, digits: number): string | null =>
  value === null || !Number.isFinite(value) ? null : value.toFixed(digits)
const short = (value: number | null): string | null =>
  value === null || !Number.isFinite(value) ? null : String(Number(value.toPrecision(3)))

const COLUMNS: Column[] = [
  { name: 'run', text: (r) => r.run },
  { name: 'experiment', text: (r) => String(r.experiment) },
  { name: 'time', text: (r) => r.time },
  { name: 'commit', text: (r) => r.commit?.slice(0, 12) ?? null },
  { name: 'parent', text: (r) => r.parent?.slice(0, 12) ?? null },
  { name: 'kernel', text: (r) => r.kernel },
  { name: 'backend', text: (r) => r.backend },
  { name: 'dtype', text: (r) => r.dtype },
  { name: 'shape', text: (r) => r.shape },
  { name: 'status', text: (r) => r.status },
  { name: 'latency_us', text: (r) => fixed(r.latencyUs, 2) },
  { name: 'ci95_us', text: (r) => fixed(r.ci95Us, 2) },
  { name: 'throughput', text: (r) => r.throughput },
  { name: 'speedup_incumbent', text: (r) => fixed(r.speedupIncumbent, 4) },
  { name: 'speedup_best_baseline', text: (r) => fixed(r.speedupBestBaseline, 4) },
  { name: 'speedup_eager', text: (r) => fixed(r.speedupEager, 4) },
  { name: 'pct_peak', text: (r) => fixed(r.pctPeak, 1) },
  { name: 'max_abs_err', text: (r) => short(r.maxAbsErr) },
  { name: 'peak_vram_mb', text: (r) => fixed(r.peakVramMb, 1) },
  { name: 'wall_s', text: (r) => fixed(r.wallS, 2) },
  { name: 'cost_usd', text: (r) => fixed(r.costUsd, 4) },
  { name: 'agent', text: (r) => r.agent },
  { name: 'description', text: (r) => r.description.slice(0, 300) },
]

export const HEADER = COLUMNS.map((c) => c.name).join('\t')

/** One line without its newline. */
export function formatRow(row: Row): string {
  return COLUMNS.map((c) => plain(c.text(row) ?? '') || '-').join('\t')
}

/** One row of a ledger as text by column name; '-' has become null. */
export type LedgerRow = Record<string, string | null>

/** Reads a ledger back; rows that are not whole (a crash cut the last one) are left out and counted. */
export function parseLedger(text: string): { rows: LedgerRow[]; torn: number } {
  const { data } = Papa.parse<Record<string, string>>(text, { delimiter: '\t', header: true, skipEmptyLines: true, quoteChar: '' })
  const whole = data.filter((row) => COLUMNS.every((c) => row[c.name] !== undefined))
  const rows = whole.map((row) => Object.fromEntries(COLUMNS.map((c) => [c.name, row[c.name] === '-' ? null : (row[c.name] ?? null)])))
  return { rows, torn: data.length - whole.length }
}
