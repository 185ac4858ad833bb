/** Which rounds there are, in full and as a seeded sample, and how one is played. */
import { setTimeout as sleep } from 'node:timers/promises'
import { chance } from '../support/make.ts'
import { expectJournalledFirst, expectUndisturbed, type Result } from './after.ts'
import { type Ended, type Kill, Scene } from './scene.ts'
import type { Stage } from './stage.ts'

/** One start that is killed; then it is started again until it ends by itself. */
export type Round = { name: string; kill: Kill | null; afterMs: number | null; again: Kill | null }

export const ALL = process.env.AUTOKERNEL_KILL === 'all'
export const SEED = Number(process.env.AUTOKERNEL_KILL_SEED ?? 1)
const AT_ONCE = 2
const MAX_STARTS = 4

/** A boundary by what it is, not by whose object or which process: `git-reset write .git/worktrees/worktree/index.lock`. */
export const kindOf = (boundary: string): string =>
  boundary
    .replace(/\t/g, ' ')
    .replace(/objects\/(pack\/)?\S+/, 'objects/')
    .replace(/\/\.\d+-\w+\.tmp/, '/tmp')
    .replace(/[0-9a-f]{16}/, 'ID')
    .replace(/night\/\d+/, 'night/N')

/** Every boundary, or one of each kind, which `seed` chooses. */
export function boundaries(log: string[], all: boolean, seed: number, wanted: RegExp = /./): number[] {
  const numbered = log.map((boundary, i) => ({ at: i + 1, kind: kindOf(boundary) })).filter(({ kind }) => wanted.test(kind))
  if (all) return numbered.map(({ at }) => at)
  const random = chance(seed)
  const kinds = new Map<string, typeof numbered>()
  for (const one of numbered) kinds.set(one.kind, [...(kinds.get(one.kind) ?? []), one])
  return [...kinds.values()].map((same) => same[Math.floor(random() * same.length)]?.at ?? 0)
}

/** Plays rounds two at a time and tells of every one that failed. */
export async function playAll<T extends { name: string }>(rounds: T[], play: (round: T) => Promise<void>): Promise<void> {
  const left = [...rounds]
  const failures: string[] = []
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
  if (failures.length > 0) throw new Error(`${failures.length} of ${rounds.length} rounds failed (seed ${SEED})\n${failures.join('\n\n')}`)
}

export async function playRound(stage: Stage, reference: Result, round: Round, program?: string): Promise<void> {
  const scene = new Scene(stage, program)
  let last = await scene.start(round.kill, round.afterMs === null ? undefined : (pid) => void killLater(pid, round.afterMs ?? 0))
  const first = last
  try {
    await expectJournalledFirst(scene)
    for (let starts = 1; last.code !== 0; starts++) {
      if (starts === MAX_STARTS) throw new Error(`the run does not come to its end:\n${last.output}`)
      last = await scene.start(starts === 1 ? round.again : null)
      await expectJournalledFirst(scene)
    }
    await expectUndisturbed(scene, reference)
  } catch (error) {
    throw new Error(`died at ${first.died || first.signal}; ${text(error)}\nits last words: ${lastWords(last)}`, { cause: error })
  }
  scene.remove()
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
