/** Many starts of one run, and many runs on one device. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { lockOwner, takeDeviceLock } from '../../src/effects/lock.ts'
import { expectUndisturbed, type Result, resultOf } from './after.ts'
import { type Ended, Scene } from './scene.ts'
import { type Stage, setStage } from './stage.ts'

const MINUTES = 60_000
const STARTS = process.env.AUTOKERNEL_KILL === 'all' ? 50 : 20

describe('one at a time', () => {
  let stage: Stage
  let reference: Result

  beforeAll(async () => {
    stage = await setStage()
    const scene = new Scene(stage)
    expect(await scene.start(null)).toMatchObject({ code: 0 })
    reference = resultOf(scene)
  }, 5 * MINUTES)
  afterAll(() => stage.close())

  it(`of ${STARTS} starts of one run at the same time exactly one wins, the others say who has it, and one that comes later that it is finished`, {
    timeout: 10 * MINUTES,
  }, async () => {
    const locks = stage.newPlace()
    const scene = new Scene(stage, undefined, locks)
    const device = await takeDeviceLock('cpu', () => {}, undefined, locks) // so that the winner is still there when the last one comes
    const ended: Ended[] = []
    const all = Array.from({ length: STARTS }, () => scene.start(null).then((one) => ended.push(one)))
    while (ended.length < STARTS - 1) await sleep(50)
    const winner = lockOwner(join(scene.folder, '.autokernel', 'runs', 'night', 'lock'))
    expect(winner).toMatch(/^\d+$/)
    device.release()
    await Promise.all(all)

    const losers = ended.filter(({ code }) => code === 75)
    expect(losers).toHaveLength(STARTS - 1)
    for (const { output } of losers) expect(output).toContain(`is in use by process ${winner};`)
    const won = ended.filter(({ code }) => code === 0)
    expect(won).toMatchObject([{ output: expect.stringMatching(/waiting for the device, held by pid \d+; runs take turns/) }])
    await expectUndisturbed(scene, reference)

    const journal = readFileSync(scene.journal)
    const late = await scene.start(null)
    expect(late).toMatchObject({ code: 0, output: expect.stringMatching(/run night is finished \(--max-experiments is reached\)/) })
    expect(readFileSync(scene.journal)).toEqual(journal)
  })

  it('two runs on one device both come to their end, and never measure at the same moment', { timeout: 5 * MINUTES }, async () => {
    const locks = stage.newPlace()
    const before = measurements(stage).length
    const scenes = [new Scene(stage, undefined, locks), new Scene(stage, undefined, locks)]
    const ended = await Promise.all(scenes.map((scene) => scene.start(null)))
    expect(ended.map(({ code }) => code)).toEqual([0, 0])
    for (const scene of scenes) await expectUndisturbed(scene, reference)

    const turns = measurements(stage).slice(before)
    expect(new Set(turns.map(({ run }) => run)).size).toBe(2)
    const sorted = turns.sort((a, b) => Number(a.began - b.began))
    expect(sorted.filter(({ run }, i) => run !== (sorted[i + 1]?.run ?? run)).length).toBeGreaterThan(3) // they really took turns
    for (const [i, { ended: end }] of sorted.entries()) {
      const next = sorted[i + 1]
      if (next) expect(next.began).toBeGreaterThanOrEqual(end)
    }
  })
})

/** What the judge was asked, by whom, and from when to when it worked on it. */
function measurements({ times }: Stage): { run: string; began: bigint; ended: bigint }[] {
  return readFileSync(times, 'utf8')
    .trim()
    .split('\n')
    .map((line) => {
      const [run = '', , began = '0', ended = '0'] = line.split(' ')
      return { run, began: BigInt(began), ended: BigInt(ended) }
    })
}
