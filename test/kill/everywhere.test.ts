/** A run killed everywhere comes to the same end as one that is left alone. All of it: npm run test:kill; otherwise a seeded sample. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { chance } from '../support/make.ts'
import { expectUndisturbed, type Result, resultOf, usersSide } from './after.ts'
import { expectMovedBranchLeft } from './moved.ts'
import { buildMutant, MUTANTS } from './mutants.ts'
import { ALL, boundaries, playAll, playRound, type Round, SEED } from './rounds.ts'
import { Scene } from './scene.ts'
import { IDEAS, type Stage, setStage } from './stage.ts'

const MINUTES = 60_000
const LONG = ALL ? 120 * MINUTES : 10 * MINUTES
const random = chance(SEED)

describe('a run that is killed and started again ends as if it had been left alone', () => {
  let stage: Stage
  let reference: Result
  let log: string[]
  let ms: number

  beforeAll(async () => {
    stage = await setStage()
    const first = new Scene(stage)
    const before = usersSide(first.folder)
    expect(await first.start(null)).toMatchObject({ code: 0 }) // profiles, compiles and checks for real: the others find it recorded
    first.remove()
    const scene = new Scene(stage)
    const began = performance.now()
    expect(await scene.start(null)).toMatchObject({ code: 0 })
    ms = performance.now() - began
    log = scene.log()
    reference = resultOf(scene)
    expect(reference.user).toEqual(before)
    await expectUndisturbed(scene, reference)
    scene.remove()
  }, 5 * MINUTES)
  afterAll(() => stage.close())

  const play = (round: Round): Promise<void> => playRound(stage, reference, round)
  const at = (number: number, who: 'daemon' | 'power' | 'caller', torn = false): Round => {
    return { name: `${who} at ${number}`, kill: { at: number, who, torn }, afterMs: null, again: null }
  }
  const sample = <T>(values: T[], count: number): T[] =>
    ALL
      ? values
      : values
          .map((value) => ({ value, place: random() }))
          .sort((a, b) => a.place - b.place)
          .slice(0, count)
          .map(({ value }) => value)

  it('is worth comparing with: kept, slower, wrong and broken kernels are in it', () => {
    const statuses = reference.rows.map((row) => row.split('\t')[9])
    expect(statuses.slice(-IDEAS)).toEqual(['keep', 'wrong', 'discard', 'crash', 'keep'])
    expect(reference.branch.split('\n').filter((line) => line.includes(' perf('))).toHaveLength(2)
    expect(log.length).toBeGreaterThan(300)
  })

  it('when the daemon dies before any call that writes, syncs, renames or starts something', { timeout: LONG }, async () => {
    await playAll(
      sample(boundaries(log, ALL, SEED), 40).map((number) => at(number, 'daemon')),
      play,
    )
  })

  it('when the power goes, with half of a write done and all lost that was not synced', { timeout: LONG }, async () => {
    await playAll(
      sample(boundaries(log, ALL, SEED + 1), 8).map((number) => at(number, 'power', true)),
      play,
    )
  })

  it('when git dies in the middle of its work', { timeout: LONG }, async () => {
    await playAll(
      sample(boundaries(log, ALL, SEED + 2, /^git-/), 6).map((number) => at(number, 'caller', true)),
      play,
    )
  })

  it('when the restart is killed too', { timeout: LONG }, async () => {
    const rounds = Array.from({ length: ALL ? 100 : 4 }, (_, i): Round => {
      const [first, second] = [random(), random()].map((part) => 1 + Math.floor(part * log.length))
      const again = { at: Math.ceil((second ?? 1) / 3), who: i % 2 === 0 ? 'daemon' : 'power', torn: true } as const
      return { ...at(first ?? 1, 'daemon'), name: `daemon at ${first}, again at ${again.at}`, again }
    })
    await playAll(rounds, play)
  })

  it('when it is killed at a random moment', { timeout: LONG }, async () => {
    const rounds = Array.from({ length: ALL ? 300 : 3 }, (): Round => {
      const afterMs = Math.round(random() * ms)
      return { name: `after ${afterMs} ms`, kill: null, afterMs, again: null }
    })
    await playAll(rounds, play)
  })

  it('and one whose branch somebody moves stops, says so, and leaves that branch alone', { timeout: LONG }, async () => {
    await expectMovedBranchLeft(stage)
  })

  // Each of these is there for a reason: without it a run that is killed at the right moment ends differently.
  it.each(sample(MUTANTS, 3))('and does not without $without', { timeout: LONG }, async (mutant) => {
    const program = buildMutant(mutant, stage.newPlace())
    const { kill, kinds } = mutant
    if (kill === 'moved') {
      await expect(expectMovedBranchLeft(stage, program)).rejects.toThrow()
      return
    }
    const left = new Scene(stage, program)
    expect(await left.start(null)).toMatchObject({ code: 0 })
    const numbers = boundaries(left.log(), true, SEED, kinds).reverse()
    left.remove()
    expect(numbers).not.toEqual([])
    let survived = 0
    for (const number of numbers) {
      const fine = await playRound(stage, reference, { ...at(number, kill.who, kill.torn) }, program).then(
        () => true,
        () => false,
      )
      if (!fine) return
      survived++
    }
    throw new Error(`it came through all ${survived} rounds`)
  })
})
