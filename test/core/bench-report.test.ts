/** What `autokernel bench` says of a file, in words. */
import { expect, it } from 'vitest'
import { compilerLines } from '../../src/core/bench-report.ts'
import { Compiler } from '../../src/schema.ts'

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
