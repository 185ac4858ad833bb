/** Whom to ask, for what, and how many at the same time: enough that an idea is ready whenever the judge becomes free. */
import type { Asked, Effect, Repair, Run, State, StopReason } from '../types.ts'
import { proceed, targetOf } from './edit.ts'

type Step = { state: State; effects: Effect[] }

/** Repairs first: what is nearly right is worth more than what is only an idea. `at` is now. */
export function startAsking(state: State, at: number): Step {
  const effects: Effect[] = []
  let next = state.judging.phase === 'idle' ? proceed(state, 'verdict') : state // none is to come: it came before, or what was ready was out of date
  for (let asked = nextAsk(next, at); asked !== null; asked = nextAsk(next, at)) {
    const { proposing, run } = next
    const repairs = asked.repair ? proposing.repairs.slice(1) : proposing.repairs
    next = { ...next, run: { ...run, asks: asked.id }, proposing: { ...proposing, repairs, asked: [...proposing.asked, asked] } }
    effects.push({ type: 'ask', ...asked })
  }
  return { state: next, effects }
}

function nextAsk({ run, proposing }: State, since: number): Asked | null {
  const { asked, ready, repairs, waiting } = proposing
  if (waiting !== null || spent(run) !== null || !fits(run, asked.length, ready.length)) return null
  const about = (target: string, repair: Repair | null): Asked => {
    return { id: run.asks + 1, target, incumbent: targetOf(run, target).incumbent, repair, since }
  }
  const [repair] = repairs
  if (repair) return about(repair.proposal.target, repair)
  if (run.current === null || asked.length + ready.length >= wanted(run)) return null
  const { baselines, left } = targetOf(run, run.current)
  return baselines === null || left !== null ? null : about(run.current, null)
}

/** How many ideas must be on their way: the time of an answer over the time of a verdict, and one more since both vary. */
function wanted({ rules, pace: { answerMs, verdictMs } }: Run): number {
  if (answerMs === null || verdictMs === null) return Math.min(rules.inFlight, 2)
  const ratio = answerMs / Math.max(1, verdictMs)
  return Math.min(rules.inFlight, ratio <= 1 ? 1 : Math.ceil(ratio) + 1)
}

/** Which budget leaves no room for another idea, or null. */
export function spent(run: Run): StopReason | null {
  const { rules } = run
  if (room(run) === 0) return 'max-experiments'
  return rules.freeFallback ? null : moneySpent(run)
}

export function moneySpent({ rules, costUsd, tokens, turns }: Run): 'max-cost' | 'max-tokens' | 'max-turns' | null {
  if (rules.maxCostUsd !== null && costUsd >= rules.maxCostUsd) return 'max-cost'
  if (rules.maxTokens !== null && tokens >= rules.maxTokens) return 'max-tokens'
  return rules.maxTurns !== null && turns >= rules.maxTurns ? 'max-turns' : null
}

/**
 * Whom a run that went down had asked, as far as the budgets it goes on with still leave room; the first asked first.
 * A repair that may not be asked for now waits for a run that goes on with more.
 */
export function stillAsked({ run, proposing }: State): State['proposing'] {
  const { ready } = proposing
  const asked: Asked[] = []
  const repairs: Repair[] = []
  for (const each of proposing.asked) {
    if (spent(run) === null && fits(run, asked.length, ready.length)) asked.push(each)
    else if (each.repair) repairs.push(each.repair)
  }
  return { ...proposing, asked, repairs: [...repairs, ...proposing.repairs] }
}

/** How many more ideas may become experiments. */
function room({ rules, experiments, interrupted }: Run): number {
  return rules.maxExperiments === null ? Number.POSITIVE_INFINITY : Math.max(0, rules.maxExperiments - (experiments - interrupted))
}

/** Would one more still stay inside the budgets when all that fly come back as dear as the dearest? Alone it may: by one call a limit is passed. */
function fits(run: Run, flying: number, ready: number): boolean {
  const { rules } = run
  if (ready + flying >= room(run)) return false
  if (flying === 0) return true
  const { costUsd, tokens } = run.turns > 0 ? run.dearest : { costUsd: Number.POSITIVE_INFINITY, tokens: Number.POSITIVE_INFINITY }
  if (rules.maxCostUsd !== null && run.costUsd + flying * costUsd >= rules.maxCostUsd) return false
  if (rules.maxTokens !== null && run.tokens + flying * tokens >= rules.maxTokens) return false
  return rules.maxTurns === null || run.turns + flying < rules.maxTurns
}
