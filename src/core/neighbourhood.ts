/** The settings of a kernel's marked constants around those it has: one step first, then pairs of steps, then the whole space. */
import { createHash } from 'node:crypto'
import type { Attempt, Setting } from '../types.ts'
import { type Change, describe, type Lesson, lessons } from './moves.ts'
import { mix, permutation } from './shuffle.ts'
import { normalize, normalizedHash, normalizeExpression } from './source-hash.ts'
import { applyTunables, findTunables, type Tunable } from './tunables.ts'

/** Values of all marked constants; `change` is what differs from the source in words that `lessons` reads, `hypothesis` adds what it means. */
export type Neighbour = Pick<Setting, 'values' | 'change' | 'hypothesis'>

/** How many points of the wider space are weighed against each other before one is taken. */
const LOOKAHEAD = 16
/** Walking the wider space needs exact integers; what lies beyond keeps the source's values. */
const MAX_POINTS = 2 ** 52

/** Everything that is not known yet, best guess first and generated as it is asked for: one is an idea, the first dozen are a sweep. */
export function* neighbours(
  source: string,
  { seed, attempts, known }: { seed: string; attempts: Attempt[]; known: (sourceHash: string) => boolean },
): Generator<Neighbour> {
  const tunables = worthTuning(source)
  if (tunables.length === 0) return
  const hash = hasher(source, tunables)
  const given = new Set([normalizedHash(source)])
  for (const changes of moves(tunables, lessons(attempts), seed, isNew)) {
    if (!isNew(changes)) continue
    given.add(hash(changes))
    const hypothesis = describe(changes)
    yield { values: valuesOf(tunables, changes), change: hypothesis.split(':')[0] ?? '', hypothesis }
  }

  function isNew(changes: Change[]): boolean {
    const candidate = hash(changes)
    return !given.has(candidate) && !known(candidate)
  }
}

export const worthTuning = (source: string): Tunable[] => findTunables(source).filter(({ values }) => values.length > 1)

function valuesOf(tunables: Tunable[], changes: Change[]): Record<string, string> {
  const values = tunables.map(({ name, values, current }) => [name, values[current] ?? ''])
  return Object.fromEntries([...values, ...changes.map(({ tunable, to }) => [tunable.name, tunable.values[to] ?? ''])])
}

function* moves(tunables: Tunable[], learned: Lesson[], seed: string, isNew: (changes: Change[]) => boolean): Generator<Change[]> {
  const ranked = (list: Change[][]): Change[][] =>
    list
      .map((changes) => ({ changes, promise: promise(changes, learned), place: mix(`${seed} ${describe(changes)}`) }))
      .sort((a, b) => b.promise - a.promise || a.place - b.place)
      .map(({ changes }) => changes)

  const steps = tunables.flatMap(oneStep)
  yield* ranked(steps.map((step) => [step]))
  yield* ranked(pairs(steps))
  yield* ranked(tunables.flatMap(elsewhere).map((change) => [change]))
  yield* wider(tunables, mix(seed), isNew, ranked)
}

/** The value above and the one below; where order means nothing, every other value. */
function oneStep(tunable: Tunable): Change[] {
  return elsewhere(tunable).filter(({ to }) => !tunable.ordered || Math.abs(to - tunable.current) === 1)
}

function elsewhere(tunable: Tunable): Change[] {
  return tunable.values.map((_, to) => ({ tunable, to })).filter(({ to }) => to !== tunable.current)
}

function pairs(steps: Change[]): Change[][] {
  return steps.flatMap((a, i) => steps.slice(i + 1).flatMap((b) => (a.tunable === b.tunable ? [] : [[a, b]])))
}

/** Every point of the space once, in seeded random order; of each handful that is new, what was learned decides who goes first. */
function* wider(
  tunables: Tunable[],
  seed: number,
  isNew: (changes: Change[]) => boolean,
  ranked: (list: Change[][]) => Change[][],
): Generator<Change[]> {
  const points = Math.min(
    MAX_POINTS,
    tunables.reduce((product, { values }) => product * values.length, 1),
  )
  const place = permutation(points, seed)
  let handful: Change[][] = []
  for (let i = 0; i < points; i++) {
    const changes = point(tunables, place(i))
    if (changes.length > 0 && isNew(changes)) handful.push(changes)
    if (handful.length < LOOKAHEAD) continue
    yield* ranked(handful)
    handful = []
  }
  yield* ranked(handful)
}

/** A number read as one index per constant, as far as the number goes. */
function point(tunables: Tunable[], index: number): Change[] {
  let rest = index
  return tunables
    .map((tunable) => {
      const to = rest % tunable.values.length
      rest = Math.floor(rest / tunable.values.length)
      return { tunable, to }
    })
    .filter(({ tunable, to }) => to !== tunable.current)
}

/** What earlier attempts say about a change: how that constant did in that direction, and most of all at that very value. */
function promise(changes: Change[], learned: Lesson[]): number {
  let sum = 0
  for (const { tunable, to } of changes) {
    for (const { name, from, to: reached, worth } of learned) {
      if (name !== tunable.name) continue
      const target = tunable.values.indexOf(reached)
      const start = tunable.values.indexOf(from)
      if (target === to) sum += worth
      if (!tunable.ordered || target < 0 || start < 0) continue
      sum += Math.sign(target - start) === Math.sign(to - tunable.current) ? worth : -worth / 2
    }
  }
  return sum / changes.length
}

/** normalizedHash of the source with some constants changed, without lexing the whole file again for each. */
function hasher(source: string, tunables: Tunable[]): (changes: Change[]) => string {
  const slots = Object.fromEntries(tunables.map(({ name }, i) => [name, `autokernel_slot_${i}_`]))
  const pieces = normalize(applyTunables(source, slots)).split(/(autokernel_slot_\d+_)/)
  return (changes) => {
    const values = tunables.map(({ values, current }) => values[current] ?? '')
    for (const { tunable, to } of changes) values[tunables.indexOf(tunable)] = tunable.values[to] ?? ''
    const hash = createHash('sha256')
    for (const piece of pieces) hash.update(slotValue(piece, values) ?? piece)
    return hash.digest('hex')
  }
}

function slotValue(piece: string, values: string[]): string | undefined {
  const slot = /^autokernel_slot_(\d+)_$/.exec(piece)
  return slot ? normalizeExpression(values[Number(slot[1])] ?? '') : undefined
}
