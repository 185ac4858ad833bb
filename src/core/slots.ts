/** Keeps both slots filled: which kernel is current, what is judged next, whom to ask. */
import type { Effect, Proposal, Run, State } from '../types.ts'
import { leaveReason, nextTarget } from './advance.ts'
import { spent, startAsking } from './asking.ts'
import { enter, leave, targetOf } from './edit.ts'
import { decide } from './judge.ts'
import { sweepEffect, untried } from './sweep.ts'

type Step = { state: State; effects: Effect[] }

/** Starts whatever can start now. `at` and `wall` are the moment of the event that led here. */
export function fillSlots(state: State, at: number, wall: string): Step {
  if (state.run.stop || state.paused) return { state, effects: [] }
  const placed = chooseKernel(state)
  const judging = startJudging(placed, at, wall)
  const asking = startAsking(judging.state, at)
  return { state: stopWhenSpent(asking.state), effects: [...judging.effects, ...asking.effects] }
}

/** Needs the device, and may be cut off: it is no verdict until its result is in. */
export const measures = ({ type }: Effect): boolean =>
  type === 'baseline' || type === 'sweep' || type === 'check' || type === 'time' || type === 'confirm'

/** Effects of whatever was under way when the run went down; they are safe to start again. */
export function pending(state: State): Effect[] {
  const { judging, proposing, run } = state
  const effects: Effect[] = []
  const target = (name: string) => targetOf(run, name).target
  if (judging.phase === 'baselining')
    effects.push({ type: 'baseline', target: target(judging.target), commit: targetOf(run, judging.target).startCommit })
  if (judging.phase === 'sweeping') effects.push(sweepEffect(run, judging))
  if (judging.phase === 'committing')
    effects.push({ type: 'commit', number: judging.number, proposal: judging.proposal, parent: judging.parent, wall: judging.wall })
  if (judging.phase === 'checking')
    effects.push({ type: 'check', experiment: judging.experiment, target: target(judging.experiment.proposal.target) })
  if (judging.phase === 'timing') {
    const timed = target(judging.experiment.proposal.target)
    const decision = decide(judging.rounds, timed.shapes, run.rules) // a verdict only when the rules have changed meanwhile
    const rounds = decision.kind === 'more' ? decision.rounds : 1
    effects.push({ type: 'time', experiment: judging.experiment, target: timed, rounds })
  }
  if (judging.phase === 'confirming') {
    const name = judging.experiment.proposal.target
    effects.push({ type: 'confirm', experiment: judging.experiment, target: target(name), start: targetOf(run, name).startCommit })
  }
  if (judging.phase === 'settling') {
    effects.push({
      type: 'settle',
      experiment: judging.experiment,
      verdict: judging.verdict,
      row: judging.row,
      message: judging.message,
      wall: judging.wall,
    })
  }
  effects.push(...proposing.asked.map((asked) => ({ type: 'ask' as const, ...asked })))
  if (proposing.waiting === 'provider') effects.push({ type: 'wait', ms: 0 })
  return effects
}

/** The name of the kernel whose candidate is in the judge's hands. */
export function beingJudged(state: State): string | null {
  const { judging } = state
  if (judging.phase === 'idle') return null
  if (judging.phase === 'baselining') return judging.target
  return judging.phase === 'committing' || judging.phase === 'sweeping' ? judging.proposal.target : judging.experiment.proposal.target
}

/** Leaves the current kernel when there is a reason to, once its last verdict is in, and enters the next. */
function chooseKernel(state: State): State {
  let next = state
  const { current } = next.run
  if (current !== null) {
    if (beingJudged(next) === current) return next
    const target = targetOf(next.run, current)
    const reason = target.left ?? leaveReason(target, next.run.rules)
    if (reason === null) return next
    next = leave(next, current, reason)
    next = { ...next, run: { ...next.run, current: null } }
  }
  if (next.judging.phase !== 'idle') return next
  const name = nextTarget(next.run)
  return name === null ? next : enter(next, name)
}

function startJudging(state: State, at: number, wall: string): Step {
  const { run, proposing, judging } = state
  if (judging.phase !== 'idle') return { state, effects: [] }
  // All of them before the first verdict: a kernel that is never reached may still be faster than what the model has.
  const unmeasured = run.order.map((name) => targetOf(run, name)).find((t) => t.baselines === null && t.left === null)
  if (unmeasured) {
    const { target, startCommit } = unmeasured
    return {
      state: { ...state, judging: { phase: 'baselining', target: target.name } },
      effects: [{ type: 'baseline', target, commit: startCommit }],
    }
  }
  if (spent(run) === 'max-experiments') return { state, effects: [] } // what waits is kept for a run that goes on with more
  const [proposal, ...ready] = proposing.ready.filter((idea) => !(idea.disposable && isStale(run, idea)))
  if (!proposal) return { state: { ...state, proposing: { ...proposing, ready } }, effects: [] }
  const number = run.experiments + 1
  const parent = run.best
  const begun = { number, proposal: { ...proposal, sweep: untried(run, proposal, ready) }, parent, startedAt: at, wall }
  const judged = { ...state, run: { ...run, experiments: number }, proposing: { ...proposing, ready } }
  if (begun.proposal.sweep.length > 0)
    return { state: { ...judged, judging: { phase: 'sweeping', ...begun, cuts: 0 } }, effects: [sweepEffect(run, begun)] }
  return { state: { ...judged, judging: { phase: 'committing', ...begun } }, effects: [{ type: 'commit', number, proposal, parent, wall }] }
}

const isStale = (run: Run, { target, basedOn }: Proposal): boolean => basedOn !== targetOf(run, target).incumbent || target !== run.current

/** Ends the run when nothing is under way and nothing may or can follow. */
function stopWhenSpent(state: State): State {
  const { asked, ready } = state.proposing
  if (state.judging.phase !== 'idle' || asked.length > 0) return state
  const reason = spent(state.run) ?? (state.run.current === null ? 'exhausted' : null)
  if (reason === null || (ready.length > 0 && reason !== 'max-experiments')) return state
  const detail = reason === 'exhausted' ? 'no kernel has anything left to try' : `--${reason} is reached`
  return { ...state, run: { ...state.run, stop: { reason, detail, now: false } } }
}
