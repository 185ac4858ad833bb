/** The check before a keep: whole, and on a GPU beyond 2^31 elements; what fails it is not timed any more. */
import { expect, it } from 'vitest'
import { performer } from '../src/perform.ts'
import type { World } from '../src/ports.ts'
import type { Check, DeviceKind } from '../src/schema.ts'
import { check, device, round, rules, run, sha, target, timing } from './support/make.ts'

/** What came of it, and what the judge was asked. */
async function confirmed(kind: DeviceKind, found: Check) {
  const asked: string[] = []
  const nobody = (): never => {
    throw new Error('only the judge is asked')
  }
  const world: World = {
    evaluator: {
      check: async (_, path, options) => {
        asked.push(`check ${path} ${JSON.stringify(options)}`)
        return found
      },
      time: async (_, sides, rounds) => {
        asked.push('time')
        return timing(Array.from({ length: rounds }, () => round(Object.fromEntries(sides.map(({ name }) => [name, 100])))))
      },
      counters: nobody,
      close: async () => {},
    },
    agent: { name: 'nobody', propose: nobody },
    repo: { candidate: nobody, keep: nobody, reset: nobody, source: nobody },
    ledger: { append: nobody },
    fileOf: async (commit) => `${commit}.py`,
    withFiles: nobody,
    playbook: () => '',
    steer: () => '',
  }
  const experiment = { number: 1, commit: sha(2), parent: sha(1) }
  const effect = { type: 'confirm' as const, experiment, target: target('rmsnorm'), start: sha(1) }
  const state = { run: { ...run(['rmsnorm']), rules, device: { ...device, kind } }, paused: false }
  type Perform = ReturnType<typeof performer>
  const happened = await performer(world)(effect as Parameters<Perform>[0], state as Parameters<Perform>[1])
  return { happened, asked }
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
