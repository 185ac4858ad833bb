/** What `autokernel bench` says of a file, in words. */
import { expect, it } from 'vitest'
import { benchReport, benchText, compilerLines } from '../../src/core/bench-report.ts'
import { Compiler, type Round, ShapeCase, type Timing } from '../../src/schema.ts'
import { check, device, round, timing } from '../support/make.ts'

const numbers = { registers: 40, spills: 0, shared_bytes: 4096, occupancy: 0.75 }

it('says what the compiler made of each kernel of a GPU candidate', () => {
  const silent = { registers: null, spills: null, shared_bytes: null, occupancy: null }
  const compiler = Compiler.parse({
    ...numbers,
    vector_width: null,
    kernels: [
      { name: 'rows', ...numbers },
      { name: 'mean', ...silent },
    ],
  })
  expect(compilerLines(compiler)).toEqual([
    '  compiled: rows: 40 registers, none spilled, 4096 bytes of shared memory, occupancy 75 %',
    '  compiled: mean: the driver does not tell',
  ])
})

it('says how wide the vectors of a C++ candidate are, and nothing where nobody told', () => {
  const compiler = Compiler.parse({ registers: null, spills: 3, shared_bytes: null, occupancy: null, vector_width: 512 })
  expect(compilerLines(compiler)).toEqual(['  compiled: C++ with 512-bit vectors, 3 stores of vectors to the stack'])
  expect(compilerLines(null)).toEqual([])
})

const [small, large] = [1024, 4096].map((rows) => ShapeCase.parse({ shape: [rows, 64], weight: 0.5 })) as [ShapeCase, ShapeCase]

const said = (timed: Timing, shapes = [small]): string => benchText(benchReport(check(), timed, shapes, device))

it('says why there are no times: a busy machine, or a side that failed', () => {
  const busy = timing([round({ candidate: 10, eager: 12 }, 'others took 80 %'), round({ candidate: 10, eager: 12 }, 'others took 70 %')])
  expect(said(busy)).toContain('not timed: 2 of 2 pairs were disturbed (others took 80 %); try again when the machine is quiet')
  const failed = timing([], { side: 'eager', kind: 'crash', detail: 'out of memory' })
  expect(said(failed)).toContain('not timed: eager: crash: out of memory')
})

it('tells the times of each shape where there are several', () => {
  const both: Round = { order: [], us: { candidate: [[10], [40]], eager: [[20], [50]] }, disturbed: null }
  const text = said({ ...timing([both, both]), limit_us: [5, 20] }, [small, large])
  expect(text).toMatch(/1024x64 +10\.00 us {2}2\.00x over eager\n +4096x64 +40\.00 us {2}1\.25x over eager/)
  expect(said(timing([round({ candidate: 10, eager: 20 }), round({ candidate: 10, eager: 20 })]))).not.toContain('1024x64')
})
