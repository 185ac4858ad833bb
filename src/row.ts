/** A line of results.tsv. */

export type RowStatus = 'baseline' | 'keep' | 'discard' | 'wrong' | 'crash' | 'timeout' | 'suspect' | 'invalid' | 'interrupted'

/** One line of results.tsv; null is written '-'. Times in microseconds. Column names and order: core/ledger.ts. */
export type Row = {
  run: string
  experiment: number
  time: string
  commit: string | null
  parent: string | null
  kernel: string
  backend: string
  dtype: string
  shape: string
  status: RowStatus
  latencyUs: number | null
  ci95Us: number | null
  throughput: string | null
  speedupIncumbent: number | null
  speedupBestBaseline: number | null
  speedupEager: number | null
  pctPeak: number | null
  maxAbsErr: number | null
  peakVramMb: number | null
  wallS: number | null
  costUsd: number
  agent: string | null
  description: string
}
