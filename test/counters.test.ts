/** Hardware counters on request: asked for what is kept, and in the next prompt; never part of a verdict. */
import { expect, it } from 'vitest'
import { counterLines } from '../src/core/bench-report.ts'
import { Declined } from '../src/effects/judge.ts'
import type { Counters } from '../src/schema.ts'
import type { Rules } from '../src/types.ts'
import { confirm } from './support/confirm.ts'
import { round, sha, timing } from './support/make.ts'
import { Play } from './support/play.ts'

const launch = { name: 'rows', us: 16.8, memory: 0.56, units: null, occupancy: 0.66 }
const counters: Counters = { kernels: [{ ...launch, stalls: [['long_scoreboard', 0.58]] }], detail: 'namespaces net' }

/** What a keep's last measurement brings, and which files were counted. */
async function confirmed(asked: Partial<Rules>, answer: () => Promise<Counters>) {
  const counted: string[] = []
  const count = async (_: unknown, path: string): Promise<Counters> => {
    counted.push(path)
    return answer()
  }
  return { happened: await confirm({ counters: count }, { asked }), counted }
}

it('counts what is about to be kept, and only when asked', async () => {
  const asked = await confirmed({ counters: true }, async () => counters)
  expect(asked.happened).toMatchObject({ type: 'confirmed', counters })
  expect(asked.counted).toEqual([`${sha(2)}.py`])
  expect((await confirmed({}, async () => counters)).counted).toEqual([])
})

it('keeps a kernel that cannot be counted all the same', async () => {
  const { happened } = await confirmed({ counters: true }, () => Promise.reject(new Declined('no room')))
  expect(happened).toMatchObject({ type: 'confirmed', counters: { kernels: [], detail: 'no room' } })
})

it('remembers them as evidence of the incumbent', () => {
  const play = new Play(['rmsnorm'])
  play.begin()
  play.answer('faster')
  play.judge(1, 80)
  play.happen({ type: 'confirmed', number: 1, timing: timing([round({ candidate: 80, start: 100, eager: 150 })]), counters })
  play.happen({ type: 'settled', number: 1, tip: sha(9) })
  expect(play.state.run.targets.rmsnorm?.evidence?.counters).toEqual(counters)
})

it('says what warps wait for, or why nobody knows', () => {
  expect(counterLines(counters)).toEqual([
    '  counted: rows: 16.8 us under ncu, memory 56 %, occupancy 66 %; warps wait for long_scoreboard 58 %',
  ])
  expect(counterLines({ kernels: [], detail: 'ncu is not on the PATH' })).toEqual(['  counted: ncu is not on the PATH'])
  expect(counterLines(null)).toEqual([])
})
