/** Small changes to a state, each a new value. */
import type { Bill, Event, Evidence, Experiment, LeaveReason, Run, State, TargetState, Verdict } from '../types.ts'
import { firstLine } from './record.ts'
import { writtenHash } from './source-hash.ts'

export function targetOf(run: Run, name: string): TargetState {
  const target = run.targets[name]
  if (!target) throw new Error(`the plan has no target '${name}'`)
  return target
}

export function put(state: State, target: TargetState): State {
  return { ...state, run: { ...state.run, targets: { ...state.run.targets, [target.target.name]: target } } }
}

/** Moves the run's clock; the time counts for the kernel that is current. What passed before the run began, or began again, is no idle time. */
export function tick(state: State, { at, type }: Event): State {
  const { run, judging } = state
  const passed = Math.max(0, at - run.elapsedMs)
  const idle = judging.phase === 'idle' && type !== 'started' ? passed : 0
  const moved: State = { ...state, run: { ...run, elapsedMs: Math.max(run.elapsedMs, at), idleMs: run.idleMs + idle } }
  if (run.current === null) return moved
  const current = targetOf(run, run.current)
  return put(moved, { ...current, spentMs: current.spentMs + passed })
}

export function spend(state: State, { costUsd, tokens, turns }: Bill): State {
  const { run } = state
  const dearest = { costUsd: Math.max(run.dearest.costUsd, costUsd), tokens: Math.max(run.dearest.tokens, tokens), turns: 1 }
  return { ...state, run: { ...run, costUsd: run.costUsd + costUsd, tokens: run.tokens + tokens, turns: run.turns + turns, dearest } }
}

/** A moving average that a changed habit moves within a few values. */
export const average = (before: number | null, value: number): number => (before === null ? value : 0.7 * before + 0.3 * value)

/** Whatever came of it, the attempt stays in its kernel's memory. */
export function remember(state: State, experiment: Experiment, verdict: Verdict, evidence: Evidence | null): State {
  const { proposal } = experiment
  const target = targetOf(state.run, proposal.target)
  const attempt = {
    experiment: experiment.number,
    hypothesis: proposal.hypothesis,
    agent: proposal.agent,
    outcome: verdict.kind === 'discard' ? verdict.why : verdict.kind,
    gain: verdict.gain?.point ?? null,
    predictedGain: proposal.predictedGain,
    detail: verdict.kind === 'keep' ? '' : firstLine(verdict.detail),
    sourceHash: writtenHash(proposal),
    points: proposal.sweep.flatMap(({ change, quick }) => (quick ? [{ change, gain: quick.gain }] : [])),
    evidence,
  }
  return put(state, { ...target, attempts: [...target.attempts, attempt] })
}

export function leave(state: State, name: string, left: LeaveReason): State {
  return put(state, { ...targetOf(state.run, name), left })
}

/** Makes a kernel the current one: a new visit with a clock and a streak of its own. */
export function enter(state: State, name: string): State {
  const target = targetOf(state.run, name)
  const entered = put(state, { ...target, left: null, visits: target.visits + 1, discardsInARow: 0, spentMs: 0 })
  return { ...entered, run: { ...entered.run, current: name } }
}

/** Asks on, when it was this that was waited for. */
export function proceed(state: State, reason: 'provider' | 'verdict'): State {
  return state.proposing.waiting === reason ? { ...state, proposing: { ...state.proposing, waiting: null } } : state
}
