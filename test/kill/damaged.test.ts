/** A run whose journal was cut or changed, and one whose judge or candidate is killed under it. */
import { readdirSync, readFileSync, readlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { chance } from '../support/make.ts'
import { expectUndisturbed, type Result, resultOf } from './after.ts'
import { ALL, playAll, SEED } from './rounds.ts'
import { Scene } from './scene.ts'
import { type Stage, setStage } from './stage.ts'

const MINUTES = 60_000
const LONG = ALL ? 60 * MINUTES : 10 * MINUTES
const random = chance(SEED)

describe('a run', () => {
  let stage: Stage
  let reference: Result

  beforeAll(async () => {
    stage = await setStage()
    const scene = new Scene(stage)
    expect(await scene.start(null)).toMatchObject({ code: 0 })
    reference = resultOf(scene)
  }, 5 * MINUTES)
  afterAll(() => stage.close())

  it('whose journal lost its end is judged again from there, and ends as if nothing had been lost', { timeout: LONG }, async () => {
    const rounds = Array.from({ length: ALL ? 60 : 3 }, (_, i) => ({ name: `cut ${i}`, lines: 1 + (i % 3), part: random() }))
    await playAll(rounds, async ({ lines, part }) => {
      const scene = new Scene(stage)
      await scene.start(null)
      const text = readFileSync(scene.journal, 'latin1')
      const ends = [...text.matchAll(/\n/g)].map(({ index }) => index + 1)
      const [from = 0, to = 0] = [ends.at(-1 - lines), ends.at(-lines)]
      truncateSync(scene.journal, from + Math.floor(part * (to - from)))
      expect(await scene.start(null)).toMatchObject({ code: 0 })
      await expectUndisturbed(scene, reference)
      scene.remove()
    })
  })

  it('with a bit flipped in its journal is refused with the number of the line, and nothing is touched', { timeout: LONG }, async () => {
    const scene = new Scene(stage)
    await scene.start(null)
    const before = resultOf(scene)
    const whole = readFileSync(scene.journal)
    for (const at of [whole.length - 40, Math.floor(whole.length / 2), 50]) {
      const flipped = Buffer.from(whole)
      flipped[at] = (flipped[at] ?? 0) ^ 4
      writeFileSync(scene.journal, flipped)
      const line = whole.subarray(0, at).toString('latin1').split('\n').length
      const ended = await scene.start(null)
      expect(ended.output).toMatch(new RegExp(`events\\.jsonl: line ${line} is damaged`))
      expect(ended.code).toBe(2) // by which systemd knows that a restart is no use
      expect(resultOf(scene)).toEqual(before)
    }
    scene.remove()
  })

  it('whose judge is killed asks a fresh one, or ends and goes on when it is started again', { timeout: LONG }, async () => {
    const rounds = Array.from({ length: ALL ? 60 : 3 }, (_, i) => ({ name: `judge ${i}`, times: 1 + (i % 3), after: random() * 1500 }))
    await playAll(rounds, async ({ times, after }) => {
      const scene = new Scene(stage)
      let last = await scene.start(null, () => void killJudges(scene.folder, times, after))
      for (let starts = 1; last.code !== 0 && starts < 4; starts++) last = await scene.start(null)
      expect(last.output).toMatch(/verified|is finished/)
      await expectUndisturbed(scene, reference)
      scene.remove()
    })
  })
})

/** Kills the judge's program as soon as there is one, so many times, after a while. */
async function killJudges(folder: string, times: number, afterMs: number): Promise<void> {
  await sleep(afterMs)
  for (let i = 0; i < times; i++) {
    for (const pid of judgesIn(folder)) process.kill(pid, 'SIGKILL')
    await sleep(60)
  }
}

function judgesIn(folder: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readlinkSync(`/proc/${pid}/cwd`) === folder && readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('judge_client.py')
      } catch {
        return false // ended meanwhile
      }
    })
    .map(Number)
}
