import { describe, expect, it } from 'vitest'
import { formatRow, HEADER, parseLedger } from '../../src/core/ledger.ts'
import type { Row } from '../../src/row.ts'

const row: Row = {
  run: '20261120-llama-7f3a',
  experiment: 42,
  time: '2026-11-20T03:00:00.000Z',
  commit: '1234567890abcdef1234567890abcdef12345678',
  parent: null,
  kernel: 'rmsnorm',
  backend: 'triton',
  dtype: 'bf16',
  shape: '4096x4096',
  status: 'keep',
  latencyUs: 30.7,
  ci95Us: 0.21,
  throughput: '2788 GB/s',
  speedupIncumbent: 1.34,
  speedupBestBaseline: 1.18,
  speedupEager: 2.1,
  pctPeak: 91.04,
  maxAbsErr: 0.0078125,
  peakVramMb: 96,
  wallS: 3.2,
  costUsd: 0.06,
  agent: 'search',
  description: 'one pass\tover the "row"\nand no more',
}

describe('results.tsv', () => {
  it('has the 23 columns that scripts rely on, in their order', () => {
    expect(HEADER).toBe(
      'run experiment time commit parent kernel backend dtype shape status latency_us ci95_us throughput speedup_incumbent speedup_best_baseline speedup_eager pct_peak max_abs_err peak_vram_mb wall_s cost_usd agent description'.replaceAll(
        ' ',
        '\t',
      ),
    )
  })

  it('writes a row without tabs, newlines or quotes inside a field, and a dash where a value is missing', () => {
    expect(formatRow(row)).toBe(
      '20261120-llama-7f3a\t42\t2026-11-20T03:00:00.000Z\t1234567890ab\t-\trmsnorm\ttriton\tbf16\t4096x4096\tkeep\t30.70\t0.21\t2788 GB/s\t1.3400\t1.1800\t2.1000\t91.0\t0.00781\t96.0\t3.20\t0.0600\tsearch\tone pass over the row and no more',
    )
  })

  it('reads back what it wrote, with a commit of digits as text and a dash as null', () => {
    const { rows, torn } = parseLedger(`${HEADER}\n${formatRow({ ...row, commit: '1234567' })}\n`)
    expect(torn).toBe(0)
    expect(rows[0]).toMatchObject({ commit: '1234567', parent: null, experiment: '42', description: 'one pass over the row and no more' })
  })

  it('counts a row that a crash cut off, and keeps the whole ones', () => {
    const { rows, torn } = parseLedger(`${HEADER}\n${formatRow(row)}\n${formatRow(row).slice(0, 40)}`)
    expect([rows.length, torn]).toEqual([1, 1])
  })

  it('writes a dash for a number that is not finite', () => {
    expect(formatRow({ ...row, latencyUs: Number.NaN }).split('\t')[10]).toBe('-')
  })
})
