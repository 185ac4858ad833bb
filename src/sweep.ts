/** Quick timing of one idea's settings against each other: heats of fresh processes beside the incumbent, each heat half as many. */
import { speedup } from './core/judge.ts'
import { type Entrant, nextHeat, settingsOf } from './core/sweep.ts'
import { Declined } from './effects/judge.ts'
import type { World } from './ports.ts'
import type { DeviceFacts, Round, Side, Timing } from './schema.ts'
import type { Effect, Quick } from './types.ts'

type Sweep = Effect & { type: 'sweep' }
type Runner = Entrant & { path: string }

/** A structure of which none runs has another fault than its numbers. */
const MAX_FAILURES = 3
const GROUP = 8
const PROCESS_GB = 1.2 // a context, and what torch takes with it
const CALLS_HELD = 4 // what a side may hold at once, in calls

/**
 * What each source did, as written first; null for one that was not timed. It must only be better than a guess:
 * the winner goes through the five stages and its pairs like any other candidate, and a wrong one is found there at the latest.
 */
export async function sweep(
  world: Pick<World, 'evaluator' | 'fileOf' | 'withFiles'>,
  effect: Sweep,
  device: DeviceFacts,
  signal: AbortSignal,
): Promise<(Quick | null)[]> {
  const { proposal, parent, target, budgetMs } = effect
  const deadline = performance.now() + budgetMs
  const late = (): boolean => performance.now() > deadline
  return world.withFiles(settingsOf(proposal), async (paths) => {
    const field: Runner[] = paths.map((path) => ({ path, quick: null }))
    const incumbent: Side = { name: 'incumbent', kind: 'file', path: await world.fileOf(parent, target.name) }
    try {
      await heats(field, incumbent)
    } catch (error) {
      if (!(error instanceof Declined)) throw error // what the judge cannot time is for the verdict to say
    }
    return field.map(({ quick }) => quick)
  })

  async function heats(all: Runner[], incumbent: Side): Promise<void> {
    const [written] = all
    if (!written) return
    const { verdict, detail } = await world.evaluator.check(target, written.path, { quick: true, large: false }, signal)
    if (verdict !== 'pass') written.quick = failed(`${verdict}: ${detail}`)
    if (verdict === 'invalid' || verdict === 'wrong' || verdict === 'suspect') return // so are its other settings
    const enough = (): boolean => late() || (written.quick?.gain === null && noneRuns(all))
    const size = groupSize(device, effect.bytes)
    for (let heat = nextHeat(all); heat !== null; heat = nextHeat(all))
      for (let from = 0; from < heat.field.length; from += size)
        if (!(await race(heat.field.slice(from, from + size), incumbent, heat.rounds, enough))) return
  }

  /** Who fails is left out, and the others start again: what they compiled is still there. False when the sweep is over. */
  async function race(group: Runner[], incumbent: Side, rounds: number, enough: () => boolean): Promise<boolean> {
    let running = group
    while (running.length > 0) {
      const sides: Side[] = [incumbent, ...running.map(({ path }, i) => ({ name: `setting-${i}`, kind: 'file' as const, path }))]
      const timing = await timeQuietly(sides, rounds)
      const { failure } = timing
      if (!failure) {
        for (const [i, runner] of running.entries()) runner.quick = timed(runner.quick, timing, `setting-${i}`)
        return !enough()
      }
      const failing = failure.side.split(' or ')
      const left = running.filter((_, i) => !failing.includes(`setting-${i}`))
      if (left.length === running.length) return false // the incumbent itself: no measure to go by
      for (const runner of running) if (!left.includes(runner)) runner.quick = failed(`${failure.kind}: ${failure.detail}`, runner.quick)
      if (enough()) return false
      running = left
    }
    return true
  }

  /** A busy moment is waited for once; a sweep is not worth more. */
  async function timeQuietly(sides: Side[], rounds: number): Promise<Timing> {
    const timing = await world.evaluator.time(target, sides, rounds, signal)
    if (timing.failure || late() || timing.rounds.some(({ disturbed }) => disturbed === null)) return timing
    return world.evaluator.time(target, sides, rounds, signal)
  }

  function timed(before: Quick | null, { rounds }: Timing, side: string): Quick {
    const quiet = rounds.filter(({ disturbed }) => disturbed === null)
    const ratios = [...(before?.ratios ?? []), ...(quiet.length > 0 ? quiet : rounds).map((round) => ratio(round, side))]
    return { gain: Math.exp(ratios.reduce((sum, each) => sum + Math.log(each), 0) / ratios.length), ratios, detail: '' }
  }

  function ratio(round: Round, side: string): number {
    return speedup([{ ...round, disturbed: null }], 'incumbent', side, target.shapes)?.point ?? 1
  }
}

const failed = (detail: string, before: Quick | null = null): Quick => ({ gain: null, ratios: before?.ratios ?? [], detail })

function noneRuns(field: Entrant[]): boolean {
  const known = field.filter(({ quick }) => quick !== null)
  return known.length >= MAX_FAILURES && known.every(({ quick }) => quick?.gain === null)
}

/** As many processes at a time as fit into half of the memory. */
function groupSize({ memory_gb }: DeviceFacts, bytes: number): number {
  return Math.max(1, Math.min(GROUP, Math.floor(memory_gb / 2 / (PROCESS_GB + (CALLS_HELD * bytes) / 1e9)) - 1))
}
