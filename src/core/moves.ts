/** A change of tuning constants: written so that a person understands it, and read back to learn from what it did. */
import type { Attempt } from '../types.ts'
import type { Tunable } from './tunables.ts'

export type Change = { tunable: Tunable; to: number } // an index into tunable.values
export type Lesson = { name: string; from: string; to: string; worth: number }

/** What more of a constant means, and less of it; the first pattern that fits its name speaks. */
const MEANING: [RegExp, string, string][] = [
  [/^(SMALL|MIN|MAX)_/i, 'the other path begins later', 'the other path begins earlier'],
  [/PER_THREAD/i, 'more elements in flight per thread', 'fewer elements per thread, so more threads share a row'],
  [/^[MN]R$|^NV$/i, 'a larger tile in registers, more work per load', 'a smaller tile in registers, nothing spilled'],
  [/^[MNK]C$/i, 'a larger panel, packed less often', 'a smaller panel that stays in a nearer cache'],
  [/WARPS/i, 'more threads share each program', 'fewer threads share each program, so each has more registers and work of its own'],
  [/STAGES|PIPE|DEPTH/i, 'a deeper pipeline hides more memory latency', 'a shallower pipeline leaves shared memory for more blocks'],
  [/SPLIT/i, 'more slices of one reduction in parallel', 'fewer partial results to combine'],
  [/GROUP|SWIZZLE/i, 'larger groups of tiles reuse what is in L2', 'smaller groups of tiles, closer to row order'],
  [/UNROLL|ILP/i, 'more independent work in flight per thread', 'a smaller loop body that needs fewer registers'],
  [/VEC|WIDTH|LANES/i, 'wider loads, fewer instructions per byte', 'narrower loads that align more easily'],
  [/ROWS/i, 'more rows per program amortize its start', 'fewer rows per program, so more programs to fill the device'],
  [/THREADS/i, 'more threads in parallel', 'fewer threads, less to synchronize'],
  [/CHUNK|GRAIN/i, 'larger pieces of work, less scheduling', 'smaller pieces of work, better balanced'],
  [/PREFETCH|AHEAD/i, 'data is asked for earlier', 'less data in flight, so less of the cache is used up'],
  [/(^|_)K$/i, 'longer steps along the reduction, fewer of them', 'shorter steps along the reduction, less to hold at once'],
  [/BLOCK|TILE/i, 'fewer, wider blocks: more reuse and fewer starts', 'more, smaller blocks: more of them in parallel'],
]

/** What a value that does not run is worth, as the log of a gain. */
const FAILED = -0.5

export function describe(changes: Change[]): string {
  const parts = changes.map(({ tunable, to }) => `${tunable.name} ${tunable.values[tunable.current]} -> ${tunable.values[to]}`)
  const [only] = changes
  if (changes.length !== 1 || !only) return `${parts.join(', ')}: constants that may only pay together`
  return `${parts[0]}: ${meaning(only)}`
}

function meaning({ tunable, to }: Change): string {
  if (!tunable.ordered) return 'the other way to do the same'
  if (tunable.values.join() === '0,1') return to === 1 ? 'switched on' : 'switched off'
  const more = to > tunable.current
  const [, up, down] = MEANING.find(([pattern]) => pattern.test(tunable.name)) ?? []
  return (more ? up : down) ?? (more ? 'a step up' : 'a step down')
}

/** What earlier changes of constants were worth: the log of the gain, or a fixed penalty for one that did not run. */
export function lessons(attempts: Attempt[]): Lesson[] {
  const judged = attempts.map((attempt) => ({ change: attempt.hypothesis.split(':')[0] ?? '', worth: worthOf(attempt) }))
  const timed = attempts.flatMap(({ points }) =>
    points.map(({ change, gain }) => ({ change, worth: gain === null ? FAILED : Math.log(gain) })),
  )
  return [...judged, ...timed].flatMap(({ change, worth }) => {
    if (worth === null) return []
    const changes = change.split(', ')
    const moves = changes.map((change) => /^(\w+) (\S+) -> (\S+)$/.exec(change))
    if (moves.some((move) => move === null)) return [] // somebody else's words
    return moves.map((move) => ({ name: move?.[1] ?? '', from: move?.[2] ?? '', to: move?.[3] ?? '', worth: worth / moves.length }))
  })
}

function worthOf({ outcome, gain }: Attempt): number | null {
  if (gain !== null && gain > 0) return Math.log(gain)
  return outcome === 'wrong' || outcome === 'crash' || outcome === 'timeout' ? FAILED : null
}
