/** The check before a keep: whole, and on a GPU beyond 2^31 elements; what fails it is not timed any more. */
import { expect, it } from 'vitest'
import type { Evaluator } from '../src/ports.ts'
import type { Check, DeviceKind } from '../src/schema.ts'
import { allAlike, confirm } from './support/confirm.ts'
import { check, sha } from './support/make.ts'

/** What came of it, and what the judge was asked. */
async function confirmed(kind: DeviceKind, found: Check) {
  const asked: string[] = []
  const judge: Partial<Evaluator> = {
    check: async (_, path, options) => {
      asked.push(`check ${path} ${JSON.stringify(options)}`)
      return found
    },
    time: async (_, sides, rounds) => {
      asked.push('time')
      return allAlike(sides, rounds)
    },
  }
  return { happened: await confirm(judge, { kind }), asked }
}

const LARGE = `check ${sha(2)}.py {"quick":false,"large":true}`

it('asks a GPU for the stage beyond 2^31 elements, then for the times', async () => {
  const { happened, asked } = await confirmed('cuda', check())
  expect(asked).toEqual([LARGE, 'time'])
  expect(happened).toMatchObject({ type: 'confirmed', check: { verdict: 'pass' }, timing: { failure: null } })
})

it('does not time what fails it', async () => {
  const { happened, asked } = await confirmed('rocm', check('wrong', 'large: offsets'))
  expect(asked).toEqual([LARGE])
  expect(happened).toMatchObject({ type: 'confirmed', timing: null, check: { verdict: 'wrong', detail: 'large: offsets' } })
})

it('asks a CPU for times only', async () => {
  const { happened, asked } = await confirmed('cpu', check())
  expect(asked).toEqual(['time'])
  expect(happened).toMatchObject({ type: 'confirmed', check: null })
})
