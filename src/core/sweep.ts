/** Settings of one idea against each other: which are tried, who runs in the next heat, and which of them is the experiment. */
import type { Request } from '../ports.ts'
import type { Effect, Event, Proposal, Quick, Run, Setting, State } from '../types.ts'
import { average, targetOf } from './edit.ts'
import { add, find } from './known.ts'
import { neighbours } from './neighbourhood.ts'
import { oneLine } from './patch.ts'
import { normalizedHash } from './source-hash.ts'
import { applyTunables } from './tunables.ts'

type Sweeping = State['judging'] & { phase: 'sweeping' }
type Begun = Pick<Sweeping, 'number' | 'proposal' | 'parent'>
export type Entrant = { quick: Quick | null }

const FIRST_MS = 30_000 // before any verdict has shown what an experiment takes
const LEAST_MS = 10_000
const MOST_MS = 120_000
const FINAL = 4 // from here on each heat has more rounds

/** The neighbourhood of the constants that a proposal marks. Structure is from its author, numbers are from the sweep. */
export function settingsAround(source: string, hypothesis: string, request: Request): Setting[] {
  const { seed, target, attempts, inFlight, tried, sweep } = request
  const taken = new Set([...inFlight, ...attempts].map(({ sourceHash }) => sourceHash))
  const settings: Setting[] = []
  if (sweep < 2) return settings
  for (const { values, change } of neighbours(source, {
    seed: `${seed} ${target.name}`,
    attempts: [], // lessons of another structure's constants may mislead
    known: (hash) => taken.has(hash) || tried(hash),
  })) {
    settings.push({ values, change, hypothesis: oneLine(`${hypothesis} (swept: ${change})`, 300), quick: null })
    if (settings.length >= sweep - 1) break
  }
  return settings
}

/** The sources that a sweep compares, as written first. */
export const settingsOf = ({ source, sweep }: Proposal): string[] => [source, ...sweep.map(({ values }) => applyTunables(source, values))]

/** Settings that nobody had since the idea was written, nor has in an idea that waits. */
export function untried(run: Run, { source, sweep }: Proposal, waiting: Proposal[]): Setting[] {
  const taken = new Set(waiting.map((idea) => normalizedHash(idea.source)))
  return sweep.filter(({ values }) => {
    const hash = normalizedHash(applyTunables(source, values))
    return find(run.sources, hash) === undefined && !taken.has(hash)
  })
}

/** A sweep may take as long as the verdict that follows it. */
export function sweepEffect(run: Run, { number, proposal, parent }: Begun): Effect {
  const { verdictMs, sweepMs } = run.pace
  const alone = verdictMs === null ? FIRST_MS : verdictMs - (sweepMs ?? 0)
  const budgetMs = Math.min(MOST_MS, Math.max(LEAST_MS, alone))
  const { target, baselines } = targetOf(run, proposal.target)
  return { type: 'sweep', number, proposal, parent, target, bytes: baselines?.roofline.bytes ?? 0, budgetMs }
}

/** Everybody once, then the faster half of those that run, until one is left; the last few in more rounds. */
export function nextHeat<T extends Entrant>(all: T[]): { field: T[]; rounds: number } | null {
  const waiting = all.filter(({ quick }) => quick === null)
  if (waiting.length > 0) return { field: waiting, rounds: 1 }
  const most = Math.max(...all.map(({ quick }) => quick?.ratios.length ?? 0))
  const last = all.filter(({ quick }) => quick?.gain != null && quick.ratios.length === most)
  const field = last.sort((a, b) => worth(b.quick) - worth(a.quick)).slice(0, Math.ceil(last.length / 2))
  return field.length < 2 ? null : { field, rounds: field.length > FINAL ? 1 : 2 }
}

/** The fastest setting goes on as the experiment; all that were timed have been tried. */
export function swept(state: State, sweeping: Sweeping, event: Event & { type: 'swept' }): { state: State; effects: Effect[] } {
  const { number, proposal, parent, startedAt, wall } = sweeping
  const [, change = 'as written'] = /^(\w+ \S+ -> [^:]+):/.exec(proposal.hypothesis) ?? [] // a setting itself: the search had it
  const written: Setting = { values: {}, change, hypothesis: proposal.hypothesis, quick: null }
  const all = [written, ...proposal.sweep].map((setting, i) => ({ ...setting, quick: event.quick[i] ?? null }))
  const best = all.reduce((a, b) => (worth(b.quick) > worth(a.quick) ? b : a))
  const timed = all.filter(({ quick }) => quick !== null)
  const source = applyTunables(proposal.source, best.values)
  const chosen: Proposal = { ...proposal, source, hypothesis: best.hypothesis, sweep: timed, written: proposal.source }
  const pace = { ...state.run.pace, sweepMs: average(state.run.pace.sweepMs, event.at - startedAt) }
  const hashes = timed.map(({ values }) => normalizedHash(applyTunables(proposal.source, values)))
  const sources = hashes.reduce((known, hash) => add(known, hash, number), state.run.sources)
  const run = { ...state.run, pace, sources }
  return {
    state: { ...state, run, judging: { phase: 'committing', number, proposal: chosen, parent, startedAt, wall } },
    effects: [{ type: 'commit', number, proposal: chosen, parent, wall }],
  }
}

/** Goes on as written. */
export function unswept({ number, proposal, parent, startedAt, wall }: Sweeping): State['judging'] & { phase: 'committing' } {
  return { phase: 'committing', number, proposal: { ...proposal, sweep: [] }, parent, startedAt, wall }
}

/** Who came further counts more: a mean of four rounds is worth believing where one lucky round is not. */
const worth = (quick: Quick | null): number => (quick?.gain ? quick.ratios.length * 1e3 + Math.log(quick.gain) : Number.NEGATIVE_INFINITY)
