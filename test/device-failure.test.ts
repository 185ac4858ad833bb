/** What a run makes of a device that fails: who is to blame, how often it is asked, and when it is given up. */
import { expect, it } from 'vitest'
import { deviceBack, outlasting, pausing, type Watch } from '../src/device-failure.ts'
import { DeviceFailed } from '../src/effects/judge.ts'
import { TemporaryError, ToolError } from '../src/errors.ts'
import type { Perform } from '../src/ports.ts'
import type { Effect, Happened, State } from '../src/types.ts'
import { check, proposal, round, sha, target, timing } from './support/make.ts'

const state = {} as State // nothing here asks for it
const experiment = { number: 7, proposal: proposal('rmsnorm', 'x'), commit: sha(2), parent: sha(1), startedAt: 0, cuts: 0 }
const checking: Effect = { type: 'check', experiment, target: target('rmsnorm') }
const lost = 'RuntimeError: CUDA error: no CUDA-capable device is detected'

function watch(failures: number, patienceMs?: number): Watch & { said: string[] } {
  const said: string[] = []
  let asked = 0
  const hello = () => (++asked <= failures ? Promise.reject(new DeviceFailed('GPU is lost')) : Promise.resolve({} as never))
  return { judge: { hello }, patienceMs, said, say: (text) => said.push(text), tell: (text) => said.push(`told: ${text}`) }
}

async function timesDone(perform: Perform, effect: Effect, times: number): Promise<{ done: (Happened | null)[]; why: string[] }> {
  const why: string[] = []
  const guarded = pausing(perform, (words) => why.push(words))
  const done: (Happened | null)[] = []
  for (let i = 0; i < times; i++) done.push(await guarded(effect, state))
  return { done, why }
}

it('pauses for a failed device, and says of a measurement that meets one each time that it could not be judged', async () => {
  const { done, why } = await timesDone(() => Promise.reject(new DeviceFailed('Xid 79')), checking, 3)
  expect(done).toEqual([
    { type: 'paused' },
    { type: 'paused' },
    { type: 'declined', number: 7, detail: '3 times the device failed over it: Xid 79' },
  ])
  expect(why).toEqual(['Xid 79', 'Xid 79'])
})

it('lets a sweep that brings the device down each time go on as written, and a run whose baseline does so end for now', async () => {
  const dead: Perform = () => Promise.reject(new DeviceFailed('Xid 79'))
  const place = { number: 7, proposal: experiment.proposal, parent: sha(1), target: target('rmsnorm'), bytes: 1, budgetMs: 1 }
  expect((await timesDone(dead, { type: 'sweep', ...place }, 3)).done.at(-1)).toEqual({ type: 'swept', number: 7, quick: [] })
  const baseline: Effect = { type: 'baseline', target: target('rmsnorm'), commit: sha(1) }
  await expect(timesDone(dead, baseline, 3)).rejects.toThrow(TemporaryError)
})

it.each<[string, Happened]>([
  ['crashes', { type: 'checked', number: 7, check: check('crash', lost) }],
  [
    'fails beside the incumbent',
    { type: 'timed', number: 7, timing: { ...timing([]), failure: { side: 'candidate', kind: 'crash', detail: lost } } },
  ],
])('blames the device for a candidate that %s for want of one, but not for ever', async (_, verdict) => {
  expect((await timesDone(async () => verdict, checking, 3)).done).toEqual([{ type: 'paused' }, { type: 'paused' }, verdict])
})

it.each<[string, Happened]>([
  ['a crash of its own', { type: 'checked', number: 7, check: check('crash', 'CUDA error: an illegal memory access was encountered') }],
  ['an answer that is only wrong', { type: 'checked', number: 7, check: check('wrong', lost) }],
  ['times', { type: 'timed', number: 7, timing: timing([round({ candidate: 1, incumbent: 1 })]) }],
])('blames no device for %s', async (_, verdict) => {
  expect(await timesDone(async () => verdict, checking, 1)).toEqual({ done: [verdict], why: [] })
})

it('ends with any other error of the judge', async () => {
  await expect(timesDone(() => Promise.reject(new ToolError('unreadable')), checking, 1)).rejects.toThrow('unreadable')
})

it('looks ever more seldom whether the device works, and tells of it once', async () => {
  const waits: number[] = []
  const looking = watch(9, 3_600_000)
  await deviceBack(looking, 'Xid 79\nmore', new AbortController().signal, async (ms) => void waits.push(ms))
  expect(waits.map((ms) => ms / 1000)).toEqual([5, 10, 20, 40, 80, 160, 300, 300, 300])
  expect(looking.said.filter((text) => text.startsWith('told: '))).toEqual([
    'told: the device failed (GPU is lost); the run is paused until it works',
  ])
  expect([looking.said[0], looking.said.at(-1)]).toEqual(['the device failed (Xid 79); looking whether it works', 'the device works again'])
})

it('asks what was under way at the end again when the device is back', async () => {
  let asked = 0
  const ask = () => (++asked === 1 ? Promise.reject(new DeviceFailed('Xid 79')) : Promise.resolve('verified'))
  expect(await outlasting(watch(0), new AbortController().signal, ask)).toBe('verified')
})
