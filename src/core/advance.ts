/** When to leave a kernel, and which comes next. */
import type { Baselines, LeaveReason, Rules, Run, TargetState } from '../types.ts'

/** The fastest of the alternatives a user already has. */
export function bestBaseline(baselines: Baselines): { name: 'eager' | 'vendor' | 'compile'; us: number } {
  const all = [
    { name: 'eager' as const, us: baselines.eager.us },
    { name: 'vendor' as const, us: baselines.vendor?.us ?? Number.POSITIVE_INFINITY },
    { name: 'compile' as const, us: baselines.compile?.us ?? Number.POSITIVE_INFINITY },
  ]
  return all.reduce((best, each) => (each.us < best.us ? each : best))
}

/** Share of the roofline that the incumbent reaches, 0 to 1. */
export function peakShare(target: TargetState): number {
  return target.baselines && target.latency ? target.baselines.roofline.limit_us / target.latency.us : 0
}

const UNJUDGED_IN_A_ROW = 3

export function leaveReason(target: TargetState, rules: Rules): LeaveReason | null {
  const last = target.attempts.slice(-UNJUDGED_IN_A_ROW)
  if (last.length === UNJUDGED_IN_A_ROW && last.every((attempt) => attempt.outcome === 'interrupted')) return 'broken'
  if (target.discardsInARow >= rules.maxDiscards) return 'plateau'
  if (target.spentMs >= rules.kernelMs) return 'time'
  // Someone who comes back to a kernel wants more than was enough the first time.
  if (target.visits > 1) return null
  if (peakShare(target) >= rules.peak) return 'peak'
  if (target.baselines && target.latency && bestBaseline(target.baselines).us / target.latency.us >= rules.targetSpeedup)
    return 'target-speedup'
  return null
}

/** The untouched kernel that ranks first; when there is none, the left one with most whole-model gain to expect; null when all are used up. */
export function nextTarget(run: Run): string | null {
  const fresh = run.order.find((name) => run.targets[name]?.left === null)
  if (fresh) return fresh
  const again = run.order
    .map((name) => run.targets[name])
    .filter((t): t is TargetState => t !== undefined && t.left !== 'exhausted' && t.left !== 'broken')
    .sort((a, b) => expectedGain(b) - expectedGain(a))
  return again[0]?.target.name ?? null
}

/** Share of the model's time that is still above the roofline, thinned by the visits that have gone into it. */
function expectedGain(target: TargetState): number {
  return (target.target.share * Math.max(0.02, 1 - peakShare(target))) / (1 + target.visits)
}
