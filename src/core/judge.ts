/** Measurements -> keep or discard: the nested rule over pairs of fresh processes. */
import type { Round, ShapeCase } from '../schema.ts'
import type { Interval, Latency, Verdict } from '../types.ts'
import { bounds, deviation, mean, ratioBounds, tQuantile } from './statistics.ts'

/** Pairs looked at, and the one-sided error spent on each look; together 0.01 by the union bound. */
const LOOKS = [
  { at: 1 / 3, alpha: 0.001 },
  { at: 2 / 3, alpha: 0.001 },
  { at: 1, alpha: 0.008 },
]
const HOPELESS_ALPHA = 0.01
/** The judge bounds what a GPU's own clock may claim by the other processes of the request: a pair that counts never comes alone. */
const LEAST_TOGETHER = 2
const WORST_SHAPE = Math.log(0.98) // no shape may pay more than 2 % for the gain of the others
const NEGLIGIBLE_WEIGHT = 0.01
const PHYSICS_SLACK = 0.9 // the measured peaks are themselves measured to a few per cent

export type Rule = { minGain: number; maxPairs: number }
export type Decision = { kind: 'more'; rounds: number } | { kind: 'verdict'; verdict: Verdict }

/** Mean microseconds of a call over the model's mix of calls, one value a round. */
export function callTimes(rounds: Round[], side: string, shapes: ShapeCase[]): number[] {
  const calls = shapes.reduce((sum, s) => sum + s.calls, 0)
  return rounds
    .filter((r) => r.disturbed === null && r.us[side])
    .map((r) => shapes.reduce((sum, s, i) => sum + s.calls * mean(r.us[side]?.[i] ?? [Number.NaN]), 0) / calls)
}

/** Latency of one side with its 95 % half-width over processes. */
export function latency(rounds: Round[], side: string, shapes: ShapeCase[]): Latency | null {
  const times = callTimes(rounds, side, shapes)
  if (times.length === 0) return null
  const ci95 = times.length < 2 ? 0 : (tQuantile(0.025, times.length - 1) * deviation(times)) / Math.sqrt(times.length)
  return { us: mean(times), ci95 }
}

/** How much faster `side` is than `base` (above 1 is faster), from rounds that hold both. */
export function speedup(rounds: Round[], base: string, side: string, shapes: ShapeCase[], alpha = 0.025): Interval | null {
  const logs = logRatios(rounds, base, side, shapes)
  return logs.length === 0 ? null : ratioBounds(logs, alpha)
}

function logRatios(rounds: Round[], base: string, side: string, shapes: ShapeCase[]): number[] {
  const both = rounds.filter((r) => r.us[base] && r.us[side])
  const before = callTimes(both, base, shapes)
  return callTimes(both, side, shapes).map((us, i) => Math.log((before[i] ?? Number.NaN) / us))
}

/** Screen with one pair, then confirm with up to `maxPairs` new ones, stopping early when hopeless or beyond doubt. */
export function decide(rounds: Round[], shapes: ShapeCase[], rule: Rule): Decision {
  const usable = rounds.filter((r) => r.disturbed === null)
  if (rounds.length - usable.length > 2 * rule.maxPairs) {
    return discard(
      'within-noise',
      null,
      `the device was too busy: ${rounds.length - usable.length} of ${rounds.length} pairs were disturbed`,
    )
  }
  const [screen, ...confirming] = usable
  if (!screen) return { kind: 'more', rounds: 1 }
  const first = logRatios([screen], 'incumbent', 'candidate', shapes)[0] ?? Number.NaN
  if (!(first > 0)) return discard('slower', exact(first), `the screening pair says ${ratioText(first)}`)

  const looks = LOOKS.map((look) => ({ ...look, pairs: Math.max(2, Math.round(look.at * rule.maxPairs)) }))
  const next = looks.find((look) => look.pairs > confirming.length)
  const here = looks.findLast((look) => look.pairs <= confirming.length)
  const wanted = Math.log(1 + rule.minGain)

  if (here) {
    const pairs = confirming.slice(0, here.pairs)
    const logs = logRatios(pairs, 'incumbent', 'candidate', shapes)
    const gain = ratioBounds(logs, here.alpha)
    if (Math.log(gain.low) > wanted) {
      const loser = payingShape(pairs, shapes)
      if (loser === null) return { kind: 'verdict', verdict: { kind: 'keep', gain, pairs: pairs.length } }
      if (!next) return discard('slower', gain, `faster overall but ${loser}`)
    }
    const optimistic = bounds(logs, HOPELESS_ALPHA)
    const hopeless = optimistic.high < wanted
    if (hopeless || !next) {
      const slower = optimistic.high < 0
      return discard(
        slower ? 'slower' : 'within-noise',
        gain,
        `${ratioText(mean(logs))} over ${pairs.length} pairs, needs a lower bound above ${(1 + rule.minGain).toFixed(3)}x`,
      )
    }
  }
  return { kind: 'more', rounds: Math.max(LEAST_TOGETHER, (next?.pairs ?? rule.maxPairs) - confirming.length) }
}

/** A shape whose lower bound shows that it pays for the others, in words; null when there is none. */
function payingShape(rounds: Round[], shapes: ShapeCase[]): string | null {
  for (const [index, shape] of shapes.entries()) {
    if (shape.weight < NEGLIGIBLE_WEIGHT) continue
    const logs = rounds.map((r) => Math.log(mean(r.us.incumbent?.[index] ?? []) / mean(r.us.candidate?.[index] ?? [])))
    const { point, low } = bounds(logs, HOPELESS_ALPHA)
    if (!(low > WORST_SHAPE))
      return `shape ${shape.shape.join('x')} is at ${ratioText(point)} (lower bound ${ratioText(low)}, may not be under 0.98x)`
  }
  return null
}

/** Faster than the bytes or the operations allow: a reason to hold, in words, or null. `trusted` is the fastest of our own baselines. */
export function beatsPhysics(us: number, limitUs: number, trustedUs: number | null): string | null {
  // A baseline of ours that beats the limit shows that the limit is wrong here (a cache-resident shape), not that it cheats.
  const limit = PHYSICS_SLACK * Math.min(limitUs, trustedUs ?? limitUs)
  return us < limit ? `${us.toFixed(2)} us is under the ${limitUs.toFixed(2)} us that the measured peaks of this device allow` : null
}

const ratioText = (log: number): string => `${Math.exp(log).toFixed(3)}x`
const exact = (log: number): Interval => ({ point: Math.exp(log), low: Math.exp(log), high: Math.exp(log) })

function discard(why: 'slower' | 'within-noise', gain: Interval | null, detail: string): Decision {
  return { kind: 'verdict', verdict: { kind: 'discard', why, gain, detail } }
}
