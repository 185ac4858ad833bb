/** Reading and changing the constants a kernel marks. */
import { expect, it } from 'vitest'
import { applyTunables, findTunables } from '../../src/core/tunables.ts'

it.each([
  ['in the order of the marks', 'BLOCK = 1024  # tune: 256 512 1024 2048', ['256', '512', '1024', '2048'], 2],
  ['sorted, because a step should be a step', 'W = 8 # tune: 8 2 4', ['2', '4', '8'], 2],
  ['with the current value put in its place', 'W = 6  #tune: 2 4 8', ['2', '4', '6', '8'], 2],
  ['with the current value above all others', 'W = 16  # tune: 2 4 8', ['2', '4', '8', '16'], 3],
  ['annotated', 'W: tl.constexpr = 4  # tune: 2 4', ['2', '4'], 1],
  ['strings, in the order given', "ORDER = 'col'  # tune: 'row' 'col'", ["'row'", "'col'"], 1],
  ['strings in other quotes', "ORDER = \"col\"  # tune: 'row' 'col'", ["'row'", "'col'"], 1],
  ['truth values', 'EVEN = True  # tune: False True', ['False', 'True'], 1],
  ['a number written twice', 'B = 1_024  # tune: 512 1024 1024 2048', ['512', '1024', '2048'], 1],
  ['nothing but itself', 'B = 1024  # tune:', ['1024'], 0],
])('lists the values of a constant %s', (_, line, values, current) => {
  expect(findTunables(`import torch\n${line}\n`)).toMatchObject([{ line: 1, values, current }])
})

it.each([
  ['in a docstring', '"""\nBLOCK = 1024  # tune: 256 512\n"""'],
  ['in C++ source', 'SOURCE = r"""\nint W = 4  # tune: 2 4\n"""'],
  ['inside a function', 'def f():\n    BLOCK = 4  # tune: 2 4'],
  ['on something that is no assignment', 'f(4)  # tune: 2 4'],
  ['on an expression with blanks', 'B = 2 * 4  # tune: 2 4'],
  ['in a comment that only mentions it', 'B = 4  # please tune: 2 4'],
])('sees no mark %s', (_, source) => {
  expect(findTunables(source)).toEqual([])
})

it('takes the last of two assignments, the one that Python sees', () => {
  expect(findTunables('B = 1  # tune: 1 2\nB = 3  # tune: 3 4\n')).toMatchObject([{ name: 'B', line: 1, values: ['3', '4'] }])
})

it('changes exactly the lines named and keeps every other byte, line ends and last line too', () => {
  const source = '\tx\r\nBLOCK: int = 1024  # tune: 256 1024\r\n\r\nW =  4   #  tune: 4 8\rlast'
  expect(applyTunables(source, { W: '8', BLOCK: '256' })).toBe(
    '\tx\r\nBLOCK: int = 256  # tune: 256 1024\r\n\r\nW =  8   #  tune: 4 8\rlast',
  )
})

it('throws when asked to change a constant that is not marked', () => {
  expect(() => applyTunables('B = 1', { B: '2' })).toThrow("B: not a constant marked '# tune:'")
})
