/** A run killed everywhere comes to the same end as one that is left alone. All of it: npm run test:kill; otherwise a seeded sample. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { chance } from '../support/make.ts'
import { expectUndisturbed, type Result, resultOf, usersSide } from './after.ts'
import { expectMovedBranchLeft } from './moved.ts'
import { buildMutant, MUTANTS } from './mutants.ts'
import { ALL, boundaries, chains, killedAt, kindOf, playAll, playRound, type Round, SEED } from './rounds.ts'
import { type Boundary, type Kill, Scene } from './scene.ts'
import { IDEAS, type Stage, setStage } from './stage.ts'

const MINUTES = 60_000
const LONG = ALL ? 120 * MINUTES : 25 * MINUTES // five on two cores with nothing beside it
const random = chance(SEED)

describe('a run that is killed and started again ends as if it had been left alone', () => {
  let stage: Stage
  let reference: Result
  let log: Boundary[]
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

  const play = async (round: Round): Promise<string[]> => {
    const died = await playRound(stage, reference, round)
    if (ALL && died[0] === '') process.stderr.write(`${round.name}: it came to its end before\n`)
    return died
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
    let left = log
    const kills = ALL ? [1, 1, 1] : [4, 1] // of a round; what git does beside the daemon comes in another order at times, and is tried again
    for (const each of kills) {
      const missed: Boundary[] = []
      await playAll(chains(left, each), async (round) => {
        const died = await play(round)
        missed.push(...round.meant.filter(({ what }, i) => kindOf(what) !== kindOf(died[i] ?? '')))
      })
      left = missed.sort((a, b) => a.number - b.number)
    }
    if (left.length > 0) process.stderr.write(`always in another order: ${left.map(({ number }) => number).join(' ')}\n`)
  })

  it('when the power goes, with half of a write done and all lost that was not synced', { timeout: LONG }, async () => {
    await playAll(
      sample(boundaries(log, ALL, SEED + 1), 8).map((boundary) => killedAt(boundary, 'power', true)),
      play,
    )
  })

  it('when git dies in the middle of its work', { timeout: LONG }, async () => {
    await playAll(
      sample(boundaries(log, ALL, SEED + 2, /^git-/), 6).map((boundary) => killedAt(boundary, 'caller', true)),
      play,
    )
  })

  it('when the restart is killed too', { timeout: LONG }, async () => {
    const rounds = Array.from({ length: ALL ? 100 : 4 }, (_, i): Round => {
      const first = log[Math.floor(random() * log.length)] as Boundary
      const again: Kill = { at: Math.ceil((random() * log.length) / 3), events: null, who: i % 2 === 0 ? 'daemon' : 'power', torn: true }
      return { ...killedAt(first, 'daemon'), name: `daemon at ${first.number}, again at ${again.at}`, again: [again] }
    })
    await playAll(rounds, play)
  })

  it('when it is killed at a random moment', { timeout: LONG }, async () => {
    const rounds = Array.from({ length: ALL ? 300 : 3 }, (_, i) => ({ name: `moment ${i}`, part: random() }))
    await playAll(rounds, async ({ name, part }) => {
      const first = Math.round(2 * part * ms) // with others beside it a run takes up to twice as long
      const at = (afterMs: number): Round => ({ name, kill: null, afterMs, again: [] })
      for (let afterMs = first; (await play(at(afterMs)))[0] === ''; ) afterMs = Math.floor(afterMs / 2) // it was quicker
    })
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
    const found = boundaries(left.log(), true, SEED, kinds).reverse()
    left.remove()
    expect(found).not.toEqual([])
    let survived = 0
    for (const boundary of found) {
      const fine = await playRound(stage, reference, killedAt(boundary, kill.who, kill.torn), program).then(
        () => true,
        () => false,
      )
      if (!fine) return
      survived++
    }
    throw new Error(`it came through all ${survived} rounds`)
  })
})
