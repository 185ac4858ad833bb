import { describe, expect, it } from 'vitest'
import { beatsPhysics, decide, latency } from '../../src/core/judge.ts'
import { tQuantile } from '../../src/core/statistics.ts'
import type { Round } from '../../src/schema.ts'
import { chance, normal, round, target } from '../support/make.ts'

const shapes = target('rmsnorm').shapes
const rule = { minGain: 0.01, maxPairs: 12 }

/** Judges a candidate that is truly `gain` times faster, on a device whose processes differ by `spread`. */
function judgeOnce(gain: number, spread: number, random: () => number): { kept: boolean; pairs: number } {
  const rounds: Round[] = []
  for (;;) {
    const decision = decide(rounds, shapes, rule)
    if (decision.kind === 'verdict') return { kept: decision.verdict.kind === 'keep', pairs: rounds.length }
    for (let i = 0; i < decision.rounds; i++) {
      rounds.push(
        round({ incumbent: 100 * Math.exp(spread * normal(random)), candidate: (100 / gain) * Math.exp(spread * normal(random)) }),
      )
    }
  }
}

function keptShare(gain: number, spread: number, count: number): number {
  const random = chance(7)
  return Array.from({ length: count }, () => judgeOnce(gain, spread, random)).filter((r) => r.kept).length / count
}

describe('the quantiles of Student t', () => {
  it.each([
    [0.05, 1, 6.314],
    [0.025, 2, 4.303],
    [0.01, 3, 4.541],
    [0.01, 10, 2.764],
    [0.001, 7, 4.785],
    [0.025, 30, 2.042],
  ])('at alpha %f with %i degrees of freedom agree with the printed table', (alpha, df, expected) => {
    expect(tQuantile(alpha, df)).toBeCloseTo(expected, 3)
  })
})

describe('the nested rule', () => {
  it('keeps next to nothing of the noise when both kernels are the same', () => {
    expect(keptShare(1, 0.0057, 3000)).toBeLessThanOrEqual(0.002)
  })

  it('keeps a true 3 % nearly always and a true 2 % in most cases at the spread of an H200', () => {
    expect(keptShare(1.03, 0.0057, 600)).toBeGreaterThan(0.95)
    expect(keptShare(1.02, 0.0057, 600)).toBeGreaterThan(0.8)
  })

  it('needs five pairs for a gain beyond doubt and one for a slower kernel', () => {
    const random = chance(3)
    expect(judgeOnce(1.5, 0.0057, random)).toEqual({ kept: true, pairs: 5 })
    expect(judgeOnce(0.9, 0.0057, random)).toEqual({ kept: false, pairs: 1 })
  })

  it('leaves the screening pair out of the confirmation', () => {
    const lucky = [
      round({ incumbent: 200, candidate: 100 }),
      ...Array.from({ length: 4 }, () => round({ incumbent: 100, candidate: 100.1 })),
    ]
    expect(decide(lucky, shapes, rule)).toMatchObject({ kind: 'verdict', verdict: { kind: 'discard' } })
  })

  it('throws disturbed pairs away instead of averaging them in', () => {
    const rounds = [round({ incumbent: 100, candidate: 10 }, 'another process took half the device')]
    expect(decide(rounds, shapes, rule)).toEqual({ kind: 'more', rounds: 1 })
  })

  it('asks for two pairs where one is missing, and decides by as many as a look has', () => {
    const faster = (candidate: number): Round => round({ incumbent: 100, candidate })
    const some = [faster(90), faster(98), faster(97), faster(98.5), round({ incumbent: 100, candidate: 10 }, 'busy')]
    expect(decide(some, shapes, rule)).toEqual({ kind: 'more', rounds: 2 })
    expect(decide([...some, faster(97.5), faster(10)], shapes, rule)).toEqual({ kind: 'more', rounds: 3 })
    const sure = [faster(90), faster(90), faster(90.1), faster(89.9), faster(90), faster(10)]
    expect(decide(sure, shapes, rule)).toMatchObject({ verdict: { kind: 'keep', pairs: 4, gain: { point: expect.closeTo(1.11, 2) } } })
    const everything = [faster(98), ...Array.from({ length: 12 }, (_, at) => faster(at % 2 ? 95 : 103)), faster(10)]
    expect(decide(everything, shapes, rule)).toMatchObject({ kind: 'verdict', verdict: { kind: 'discard' } })
  })

  it('gives up, saying why, on a device that is never quiet', () => {
    const rounds = Array.from({ length: 25 }, () => round({ incumbent: 100, candidate: 50 }, 'busy'))
    expect(decide(rounds, shapes, rule)).toMatchObject({ verdict: { kind: 'discard', detail: expect.stringContaining('too busy') } })
  })

  it('does not let one shape pay for the gain of another, and names it', () => {
    const two = [
      { shape: [4096, 4096], options: {}, weight: 0.8, calls: 1 },
      { shape: [1, 64], options: {}, weight: 0.2, calls: 1 },
    ]
    const uneven = (): Round => ({ order: [], us: { incumbent: [[1000], [100]], candidate: [[500], [130]] }, disturbed: null })
    expect(decide(Array.from({ length: 13 }, uneven), two, rule)).toMatchObject({
      verdict: { kind: 'discard', detail: expect.stringContaining('shape 1x64') },
    })
  })
})

it('weighs shapes by how often the model calls them', () => {
  const two = [
    { shape: [1], options: {}, weight: 0.5, calls: 3 },
    { shape: [2], options: {}, weight: 0.5, calls: 1 },
  ]
  const rounds: Round[] = [{ order: [], us: { candidate: [[10], [50]] }, disturbed: null }]
  expect(latency(rounds, 'candidate', two)?.us).toBe(20)
})

describe('physics', () => {
  it.each([
    ['slower than the limit', 12, 10, 30, null],
    ['a little faster, within what the peaks are known to', 9.5, 10, 30, null],
    ['twice as fast as the bytes allow', 5, 10, 30, expect.stringContaining('5.00 us')],
    ['faster than the limit where eager PyTorch is too', 5, 10, 5.2, null],
  ])('holds only what no device could do: %s', (_, us, limit, trusted, expected) => {
    expect(beatsPhysics(us, limit, trusted)).toEqual(expected)
  })
})
