import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeAll, describe, expect, it } from 'vitest'
import { Night } from '../support/table-night.ts'
import { Disk } from './disk.ts'
import { expectClearEnd, expectWhole, outcome } from './whole.ts'

const lacking = Disk.lacking()
const EXPERIMENTS = ['--max-experiments', '6']

describe.skipIf(lacking !== null)(`a disk${lacking ? ` (left out: ${lacking})` : ''}`, () => {
  const opened: { remove: () => void }[] = []
  afterEach(() => {
    for (const each of opened.splice(0)) each.remove()
  })
  let undisturbed: string[] = []
  beforeAll(async () => {
    const night = new Night()
    expect(await night.start(night.fresh(...EXPERIMENTS)).ended).toMatchObject({ code: 0 })
    undisturbed = outcome(night)
    night.remove()
  })

  function nightOn(pace = 0): { disk: Disk; night: Night } {
    const disk = new Disk()
    const night = new Night('night', pace, disk.folder)
    opened.push({ remove: () => disk.readOnly(false) }, night, disk)
    return { disk, night }
  }
  const arguments_ = (night: Night): string[] =>
    existsSync(join(night.root, 'events.jsonl')) ? night.again() : night.fresh(...EXPERIMENTS)

  it('that is full ends the run in one line with exit code 3, wherever it strikes; with space again it comes to the same', async () => {
    const { disk, night } = nightOn()
    let struck = 0
    // Ever more room: each time it strikes a little later. A step is less than an experiment needs.
    for (let pages = 0; ; pages += 2) {
      disk.fill(pages)
      const done = await night.start(arguments_(night)).ended
      disk.free()
      expectWhole(night)
      if (done.code === 0) break
      expectClearEnd(done, /disk is full/)
      expect(night.judges()).toEqual([])
      struck++
    }
    expect(struck).toBeGreaterThan(8)
    expect(outcome(night)).toEqual(undisturbed)
  }, 180_000)

  it('that fills up in the middle of the night is no different', async () => {
    const { disk, night } = nightOn(0.1)
    for (const after of [1, 3]) {
      const { ended } = night.start(arguments_(night))
      await night.until(() => night.settled() >= after)
      disk.fill(0)
      const done = await ended
      disk.free()
      expectClearEnd(done, /disk is full/)
      expectWhole(night)
    }
    expect(await night.start(night.again()).ended).toMatchObject({ code: 0 })
    expectWhole(night)
    expect(outcome(night)).toEqual(undisturbed)
  }, 60_000)

  it('that is read-only at the start of a run, or when it is resumed, ends it the same way', async () => {
    const { disk, night } = nightOn(0.1)
    disk.readOnly(true)
    expectClearEnd(await night.start(night.fresh(...EXPERIMENTS)).ended, /EROFS|read-only/)
    disk.readOnly(false)
    expect(existsSync(night.root)).toBe(false)

    const { child, ended } = night.start(night.fresh(...EXPERIMENTS))
    await night.until(() => night.settled() >= 1)
    child.kill('SIGTERM')
    await ended
    disk.readOnly(true)
    expectClearEnd(await night.start(night.again()).ended, /EROFS|read-only/)
    disk.readOnly(false)
    expectWhole(night)
    expect(await night.start(night.again()).ended).toMatchObject({ code: 0 })
    expectWhole(night)
    expect(outcome(night)).toEqual(undisturbed)
  }, 60_000)
})
