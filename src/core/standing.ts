/** Where a run stands, in the words of a status line: what it is at, how good the best is, how fast it goes, what it costs, what is left. */
import type { Run, State, TargetState } from '../types.ts'
import { peakShare } from './advance.ts'
import { finished } from './machine.ts'
import { duration } from './report.ts'

const HOUR_MS = 3_600_000

/** What the judge has in its hands. */
export function inHand(state: State): string {
  const { judging, proposing, run, paused } = state
  if (finished(state)) return 'its last experiment is over; the whole model is verified, then reported'
  if (paused) return 'paused'
  switch (judging.phase) {
    case 'idle':
      return proposing.asked.length > 0 ? 'waiting for an idea' : proposing.waiting === 'provider' ? 'waiting for the provider' : 'idle'
    case 'baselining':
      return `${judging.target}: measuring its baselines`
    case 'committing':
      return `${judging.proposal.target} #${judging.number}: committing`
    case 'sweeping':
      return `${judging.proposal.target} #${judging.number}: timing ${judging.proposal.sweep.length} settings quickly`
    default: {
      const { number, proposal } = judging.experiment
      const pairs = judging.phase === 'timing' ? ` (${judging.rounds.length} of at most ${run.rules.maxPairs} pairs)` : ''
      return `${proposal.target} #${number}: ${judging.phase}${pairs}`
    }
  }
}

/** The incumbent with its interval: '8.9 ±0.3 us, 1.41x the start, 55 % of peak'. */
export function best(target: TargetState): string {
  const { latency, baselines } = target
  if (latency === null || baselines === null) return 'not measured yet'
  const gain = target.keeps > 0 ? `, ${(baselines.start.us / latency.us).toFixed(2)}x the start` : ''
  return `${latency.us.toFixed(1)} ±${latency.ci95.toFixed(1)} us${gain}, ${(100 * peakShare(target)).toFixed(0)} % of peak`
}

/** Verdicts an hour, what was spent, and the time that is left; `at` is the run's own clock. */
export function pace(run: Run, at: number): string {
  const rate = run.counted > 0 && at > 0 ? `${Math.round((run.counted * HOUR_MS) / at)}/h` : null
  const cost = run.turns > 0 || run.costUsd > 0 ? `${run.costUsd.toFixed(2)} USD` : null
  return [rate, cost, left(run, at)].filter((part) => part !== null).join(', ')
}

/** The tightest of the limits, as time; a limit on experiments by the pace of late. */
function left({ rules, experiments, pace: { verdictMs } }: Run, at: number): string | null {
  const byClock = rules.runMs === null ? null : Math.max(0, rules.runMs - at)
  const open = rules.maxExperiments === null ? null : Math.max(0, rules.maxExperiments - experiments)
  const byCount = open === null || verdictMs === null ? null : open * verdictMs
  if (byCount !== null && (byClock === null || byCount < byClock)) return `~${duration(byCount)} left`
  if (byClock !== null) return `${duration(byClock)} left`
  return open === null ? null : `${open} experiments left`
}

export function passingLine(state: State, at: number): string {
  const { run } = state
  const current = run.current === null ? undefined : run.targets[run.current]
  const parts = [inHand(state), current ? `best ${best(current)}` : '', `${run.counted} done`, pace(run, at)]
  return parts.filter((part) => part !== '').join(' | ')
}
