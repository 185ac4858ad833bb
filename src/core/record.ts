/** A verdict -> the row in results.tsv and the message of the kept commit. */

import type { Row, RowStatus } from '../row.ts'
import type { Check, Counters, Roofline, Round, ShapeCase, Timing } from '../schema.ts'
import type { Baselines, Experiment, Interval, Latency, Run, TargetState, Verdict } from '../types.ts'
import { bestBaseline } from './advance.ts'
import { latency } from './judge.ts'

/** What one experiment's measurements come to. `confirmed` are the fresh pairings before a keep. */
export type Measured = { check: Check | null; rounds: Round[]; confirmed: Timing | null; counters?: Counters | null | undefined }

export function statusOf(verdict: Verdict): RowStatus {
  if (verdict.kind === 'keep') return 'keep'
  if (verdict.kind === 'hold') return 'suspect'
  return verdict.why === 'slower' || verdict.why === 'within-noise' ? 'discard' : verdict.why
}

/** Candidate's latency: from the pairing against start and baselines where there is one, else from the pairs with the incumbent. */
export function candidateLatency(measured: Measured, shapes: ShapeCase[]): Latency | null {
  return latency(measured.confirmed?.rounds ?? measured.rounds, 'candidate', shapes)
}

/** Baselines with whatever the confirmation measured anew put in place of the stored times. */
export function refreshed(stored: Baselines, confirmed: Timing | null, shapes: ShapeCase[]): Baselines {
  if (!confirmed) return stored
  const fresh = (side: string, before: Latency | null) => latency(confirmed.rounds, side, shapes) ?? before
  return {
    ...stored,
    start: fresh('start', stored.start) ?? stored.start,
    eager: fresh('eager', stored.eager) ?? stored.eager,
    vendor: fresh('vendor', stored.vendor),
  }
}

export function experimentRow(
  run: Run,
  state: TargetState,
  experiment: Experiment,
  verdict: Verdict,
  measured: Measured,
  at: { at: number; wall: string },
): Row {
  const { target } = state
  const shapes = target.shapes
  const time = candidateLatency(measured, shapes)
  const baselines = state.baselines && refreshed(state.baselines, measured.confirmed, shapes)
  const words = verdict.kind === 'keep' ? '' : verdict.detail ? ` | ${firstLine(verdict.detail)}` : ''
  return {
    run: run.name,
    experiment: experiment.number,
    time: at.wall,
    commit: experiment.commit,
    parent: experiment.parent,
    kernel: target.name,
    backend: measured.check?.backend ?? target.backend,
    dtype: target.dtype,
    shape: shapes[0]?.shape.join('x') ?? '-',
    status: statusOf(verdict),
    latencyUs: time?.us ?? null,
    ci95Us: time?.ci95 ?? null,
    throughput: time && baselines ? throughput(baselines.roofline, time.us, run, target.dtype) : null,
    speedupIncumbent: verdict.gain?.point ?? null,
    speedupBestBaseline: time && baselines ? bestBaseline(baselines).us / time.us : null,
    speedupEager: time && baselines ? baselines.eager.us / time.us : null,
    pctPeak: time && baselines ? (100 * baselines.roofline.limit_us) / time.us : null,
    maxAbsErr: measured.check?.max_abs_err ?? null,
    peakVramMb: measured.check?.peak_mem_mb ?? null,
    wallS: (at.at - experiment.startedAt) / 1000,
    costUsd: experiment.proposal.costUsd,
    agent: experiment.proposal.agent,
    description: firstLine(experiment.proposal.hypothesis) + words,
  }
}

/** Baseline rows of a target, experiment 0: the starting kernel, then the alternatives it is measured against. */
export function baselineRows(run: Run, state: TargetState, check: Check, detail: string, wall: string): Row[] {
  const { target, baselines } = state
  const row = (agent: string, time: Latency | null, description: string): Row => ({
    run: run.name,
    experiment: 0,
    time: wall,
    commit: agent === 'start' ? state.startCommit : null,
    parent: null,
    kernel: target.name,
    backend: agent === 'start' ? (check.backend ?? target.backend) : 'torch',
    dtype: target.dtype,
    shape: target.shapes[0]?.shape.join('x') ?? '-',
    status: 'baseline',
    latencyUs: time?.us ?? null,
    ci95Us: time?.ci95 ?? null,
    throughput: time && baselines ? throughput(baselines.roofline, time.us, run, target.dtype) : null,
    speedupIncumbent: null,
    speedupBestBaseline: time && baselines ? bestBaseline(baselines).us / time.us : null,
    speedupEager: time && baselines ? baselines.eager.us / time.us : null,
    pctPeak: time && baselines ? (100 * baselines.roofline.limit_us) / time.us : null,
    maxAbsErr: agent === 'start' ? check.max_abs_err : null,
    peakVramMb: agent === 'start' ? check.peak_mem_mb : null,
    wallS: agent === 'start' ? check.wall_s : null,
    costUsd: 0,
    agent,
    description: baselines?.busy ? `${description}, on a busy device` : description,
  })
  if (!baselines) return [row('start', null, `the starting kernel cannot be used here: ${firstLine(detail || check.detail)}`)]
  const rows = [row('start', baselines.start, 'the starting kernel'), row('eager', baselines.eager, 'plain PyTorch')]
  if (baselines.vendor) rows.push(row('vendor', baselines.vendor, 'the best library call'))
  if (baselines.compile) rows.push(row('compile', baselines.compile, 'torch.compile of plain PyTorch'))
  return rows
}

/** The kept commit's message: what changed by how much, the hypothesis, and trailers that scripts read. */
export function keepMessage(
  run: Run,
  state: TargetState,
  experiment: Experiment,
  { gain, pairs }: { gain: Interval; pairs: number },
  measured: Measured,
): string {
  const shapes = state.target.shapes
  const after = candidateLatency(measured, shapes) ?? { us: Number.NaN, ci95: 0 }
  const before = gain.point * after.us
  const baselines = state.baselines && refreshed(state.baselines, measured.confirmed, shapes)
  const best = baselines && bestBaseline(baselines)
  const { device } = run
  const idea = firstLine(experiment.proposal.hypothesis)
  const subject = `perf(${state.target.name}): ${idea}`.slice(0, 120)
  const software = [device.runtime, `torch ${device.torch}`, device.triton && `triton ${device.triton}`].filter(Boolean).join(', ')
  const trailers = [
    `Autokernel-Run: ${run.name}`,
    `Autokernel-Experiment: ${experiment.number}`,
    `Autokernel-Latency-Us: ${after.us.toFixed(2)} +-${after.ci95.toFixed(2)} (95% CI, ${measured.confirmed?.rounds.length ?? pairs} processes)`,
    `Autokernel-Speedup: ${[`${gain.point.toFixed(3)} incumbent (${pairs} process pairs, at least ${gain.low.toFixed(3)})`, best && `${(best.us / after.us).toFixed(2)} best-baseline(${best.name})`, baselines && `${(baselines.eager.us / after.us).toFixed(2)} eager`].filter(Boolean).join(', ')}`,
    baselines && `Autokernel-Roofline: ${(baselines.roofline.limit_us / after.us).toFixed(2)} ${baselines.roofline.bound}`,
    `Autokernel-Correctness: pass worst=${(measured.check?.worst_of_tolerance ?? 0).toFixed(2)} of tolerance`,
    `Autokernel-Device: ${device.name}, ${software}`,
    `Autokernel-Cost-Usd: ${experiment.proposal.costUsd.toFixed(4)}`,
  ].filter(Boolean)
  return [
    `${subject}, ${gain.point.toFixed(2)}x (${before.toFixed(1)} -> ${after.us.toFixed(1)} us)`,
    `Hypothesis: ${experiment.proposal.hypothesis.trim()}`,
    trailers.join('\n'),
  ].join('\n\n')
}

function throughput(roofline: Roofline, us: number, run: Run, dtype: string): string {
  const share = roofline.limit_us / us
  if (roofline.bound === 'memory') return `${(share * run.device.measured.gbps).toFixed(0)} GB/s`
  return `${(share * (run.device.measured.tflops[dtype] ?? Number.NaN)).toFixed(1)} TFLOP/s`
}

export const firstLine = (text: string): string => text.trim().split('\n')[0]?.trim() ?? ''
