/** Which rounds there are, in full and as a seeded sample, and how one is played. */
import { setTimeout as sleep } from 'node:timers/promises'
import { chance } from '../support/make.ts'
import { expectJournalledFirst, expectUndisturbed, type Result, wasGivenUp } from './after.ts'
import { type Boundary, type Ended, type Kill, Scene } from './scene.ts'
import type { Stage } from './stage.ts'

/** One start that is killed; then so many that are killed `again`; then it is started until it ends by itself. */
export type Round = { name: string; kill: Kill | null; afterMs: number | null; again: Kill[] }

export const ALL = process.env.AUTOKERNEL_KILL === 'all'
export const SEED = Number(process.env.AUTOKERNEL_KILL_SEED ?? 1)
const AT_ONCE = 3 // on two cores: each waits now and then, for the judge or a child
const ONLY = process.env.AUTOKERNEL_KILL_ONLY
const MAX_STARTS = 4 // of which nobody was killed
/** In whichever file: what one of them does not know, another may have to play. */
const KINDS = ['daemon at N', 'daemon at N, again at N', 'power at N', 'caller at N', 'moment N', 'cut N', 'judge N']

/** A boundary by what it is, not by whose object or which process: `git-reset write .git/worktrees/worktree/index.lock`. */
export const kindOf = (boundary: string): string =>
  boundary
    .replace(/\t/g, ' ')
    .replace(/objects\/(pack\/)?\S+/, 'objects/')
    .replace(/\/\.\d+-\w+\.tmp/, '/tmp')
    .replace(/[0-9a-f]{16}/, 'ID')
    .replace(/night\/\d+/, 'night/N')

/** Every boundary, or one of each kind, which `seed` chooses. */
export function boundaries(log: Boundary[], all: boolean, seed: number, wanted: RegExp = /./): Boundary[] {
  const those = log.filter(({ what }) => wanted.test(kindOf(what)))
  if (all) return those
  const random = chance(seed)
  const kinds = new Map<string, Boundary[]>()
  for (const one of those) kinds.set(kindOf(one.what), [...(kinds.get(kindOf(one.what)) ?? []), one])
  return [...kinds.values()].flatMap((same) => same[Math.floor(random() * same.length)] ?? [])
}

/** The daemon's death at every boundary, so many in each round: each start dies a good part of a run later than the last. */
export function chains(all: Boundary[], kills: number): (Round & { meant: Boundary[] })[] {
  const apart = Math.ceil(all.length / kills)
  return all.slice(0, apart).map((first, i) => {
    const meant = all.filter((_, j) => j % apart === i)
    const again = meant.slice(1).map(({ since, events }): Kill => ({ at: since, events, who: 'daemon', torn: false }))
    return { ...killedAt(first, 'daemon'), name: `daemon at ${meant.map(({ number }) => number).join(', ')}`, again, meant }
  })
}

export function killedAt({ number }: Boundary, who: Kill['who'], torn = false): Round {
  return { name: `${who} at ${number}`, kill: { at: number, events: null, who, torn }, afterMs: null, again: [] }
}

/** All of them, or the one of that name: none in a test that has no rounds of its kind, and an error where nobody has it. */
export function chosen<T extends { name: string }>(rounds: T[], only: string | undefined): T[] {
  if (only === undefined) return rounds
  const kind = (name: string): string => name.replace(/\d+(, \d+)*/g, 'N')
  if (!KINDS.includes(kind(only)))
    throw new Error(`AUTOKERNEL_KILL_ONLY: expected the name of a round (${KINDS.join('; ')}), got '${only}'`)
  const alike = rounds.filter(({ name }) => kind(name) === kind(only))
  const found = alike.filter(({ name }) => name === only)
  if (alike.length > 0 && found.length === 0)
    throw new Error(
      `AUTOKERNEL_KILL_ONLY: expected a round of ${ALL ? 'npm run test:kill' : `npm run test:killed with seed ${SEED}`}, got '${only}'; there are ${alike.map(({ name }) => name).join('; ')}`,
    )
  return found
}
chosen([], ONLY) // before the minutes that setting the stage takes

/** Plays rounds a few at a time and tells of every one that failed; AUTOKERNEL_KILL_ONLY has the name of one to play alone. */
export async function playAll<T extends { name: string }>(rounds: T[], play: (round: T) => Promise<unknown>): Promise<void> {
  const left = [...chosen(rounds, ONLY)]
  const failures: string[] = []
  const [began, count] = [performance.now(), left.length]
  const worker = async (): Promise<void> => {
    for (let round = left.shift(); round !== undefined; round = left.shift()) {
      const { name } = round
      await play(round).catch((error: unknown) => {
        failures.push(`${name}: ${text(error)}`)
        process.stderr.write(`${failures.at(-1)}\n`) // at once: the rest may take an hour
      })
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
  if (ALL) process.stderr.write(`${count} rounds, ${failures.length} failed, ${Math.round((performance.now() - began) / 1000)} s\n`)
  if (failures.length > 0) throw new Error(`${failures.length} of ${count} rounds failed (seed ${SEED})\n${failures.join('\n\n')}`)
}

/** Tells at which boundary each of its kills found the run; '' where the run came to its end before. */
export async function playRound(stage: Stage, reference: Result, round: Round, program?: string): Promise<string[]> {
  const scene = new Scene(stage, program)
  let last = await scene.start(round.kill, round.afterMs === null ? undefined : (pid) => void killLater(pid, round.afterMs ?? 0))
  const died = [last.died]
  try {
    await expectJournalledFirst(scene)
    for (let starts = 1; last.code !== 0; starts++) {
      if (starts === MAX_STARTS + round.again.length) throw new Error(`the run does not come to its end:\n${last.output}`)
      last = await scene.start(round.again[starts - 1] ?? null)
      if (starts <= round.again.length) died.push(last.died)
      await expectJournalledFirst(scene)
    }
    if (round.again.length === 0 || !(await wasGivenUp(scene))) await expectUndisturbed(scene, reference)
  } catch (error) {
    throw new Error(`died at ${died.join(', then at ') || last.signal}; ${text(error)}\nits last words: ${lastWords(last)}`, {
      cause: error,
    })
  }
  scene.remove()
  return died
}

async function killLater(pid: number, ms: number): Promise<void> {
  await sleep(ms)
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // it was quicker
  }
}

const text = (error: unknown): string => (error instanceof Error ? error.message : String(error))
const lastWords = ({ output }: Ended): string => output.trimEnd().split('\n').slice(-3).join(' | ')
