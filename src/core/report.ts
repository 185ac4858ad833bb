/** What a run came to, in words: REPORT.md. */
import type { Verification } from '../schema.ts'
import type { Interval, Run, State, TargetState } from '../types.ts'
import { bestBaseline, peakShare } from './advance.ts'
import { fence } from './fence.ts'
import { oneLine } from './patch.ts'
import { ratioBounds } from './statistics.ts'

export type Ending = {
  state: State
  model: string // "llama.py (Llama, fp32)"
  modelChange: string | null // what has become of its file since the run began
  branch: string
  admitted: string[]
  leftOut: { kernel: string; why: string }[]
  verification: Verification | null
  unverified: string | null // why the model with the admitted kernels in it could not be verified
  sandbox: string
}

/** Whole-model speedup with its 95 % interval over process pairs; null when nothing was paired. */
export function modelSpeedup(verification: Verification, side = 'optimized'): Interval | null {
  const logs = verification.rounds
    .filter((r) => r.disturbed === null && r.ms.original && r.ms[side])
    .map((r) => Math.log(median(r.ms.original ?? []) / median(r.ms[side] ?? [])))
  return logs.length < 2 ? null : ratioBounds(logs, 0.025)
}

export function reportText(ending: Ending): string {
  const { state, branch } = ending
  const { run } = state
  const parts = [
    headline(ending),
    `${run.counted} experiments in ${duration(run.elapsedMs)} on ${run.device.name} (torch ${run.device.torch}${run.device.runtime ? `, ${run.device.runtime}` : ''}); stopped because ${run.stop?.detail ?? 'it was interrupted'}. ${idleShare(run)} Cost: ${run.costUsd.toFixed(2)} USD, ${run.tokens} tokens in ${run.turns} answers of a model${costPerPercent(ending)}.`,
    '## Kernels',
    kernelTable(run, ending),
    ending.leftOut.length > 0
      ? ['Not put into the model:', '', ...ending.leftOut.map((k) => `- \`${k.kernel}\`: ${k.why}`)].join('\n')
      : '',
    '## Whole model',
    ending.modelChange ? `Note: ${ending.modelChange}.` : '',
    wholeModel(ending),
    ending.admitted.length > 0 ? ['## How to use it', usage(branch)].join('\n\n') : '',
    '## How it was measured',
    `Every kept kernel beat its parent over pairs of fresh processes visited in random order (${run.rules.maxPairs} at most; one-sided bound, alpha 0.01, above ${(100 * run.rules.minGain).toFixed(1)} %). The numbers above pair the original and the optimized model anew; the product of the steps is nowhere reported as the result. Judge ${run.judgeHash.slice(0, 12)}; sandbox: ${ending.sandbox}.`,
  ]
  return `${parts.filter((p) => p !== '').join('\n\n')}\n`
}

/** The first line: what the model gained, with the interval. */
export function headline({ model, admitted, verification, unverified }: Ending): string {
  if (unverified !== null)
    return `# ${model}: not verified (${oneLine(unverified, 200)}); do not use ${admitted.join(', ')} before \`autokernel verify\` passes`
  if (!verification || admitted.length === 0) return `# ${model}: no kernel beat what the model does today; it is unchanged`
  if (verification.verdict !== 'pass') return `# ${model}: verification failed; do not use these kernels (${verification.detail})`
  const gain = modelSpeedup(verification)
  if (!gain) return `# ${model}: verified correct; its speed could not be measured on this busy device`
  const words =
    gain.low > 1
      ? `${gain.point.toFixed(3)}x faster`
      : gain.high < 1
        ? `slower, ${gain.point.toFixed(3)}x`
        : `no measurable change, ${gain.point.toFixed(3)}x`
  return `# ${model}: ${words} (95 % interval ${gain.low.toFixed(3)} to ${gain.high.toFixed(3)}), verified`
}

function kernelTable(run: Run, { admitted }: Ending): string {
  const rows = run.order
    .map((name) => run.targets[name])
    .filter((t): t is TargetState => t !== undefined && (t.visits > 0 || t.latency !== null))
  if (rows.length === 0) return 'No kernel was reached in the time.'
  const lines = rows.map((t) => {
    const { baselines, latency } = t
    if (!baselines || !latency)
      return `| ${t.target.name} | ${percent(t.target.share)} | - | - | - | - | - | ${t.attempts.length} | ${t.keeps} | its starting kernel cannot be used here |`
    const best = bestBaseline(baselines)
    const cells = [
      t.target.name,
      percent(t.target.share),
      baselines.start.us.toFixed(1),
      latency.us.toFixed(1),
      `${(baselines.start.us / latency.us).toFixed(2)}x`,
      `${(best.us / latency.us).toFixed(2)}x (${best.name})`,
      percent(peakShare(t)),
      String(t.attempts.length),
      String(t.keeps),
      admitted.includes(t.target.name) ? 'in the model' : (t.left ?? (t.visits > 0 ? 'in progress' : 'not reached')),
    ]
    return `| ${cells.join(' | ')} |`
  })
  return [
    '| kernel | share | start us | now us | over start | over best baseline | roofline | tried | kept | state |',
    '|---|---|---|---|---|---|---|---|---|---|',
    ...lines,
  ].join('\n')
}

function wholeModel({ verification, unverified }: Ending): string {
  if (unverified !== null) return ['The model with the kernels in it could not be verified:', fence('text', unverified)].join('\n\n')
  if (verification) return verificationText(verification)
  return 'Nothing was put into the model, so there is nothing to verify; the model is as it was.'
}

function verificationText(v: Verification): string {
  const compiled = modelSpeedup(v, 'compile')
  const error = v.error
    ? `Largest difference ${v.error.max_abs.toPrecision(3)}; ||e||/||ref|| ${v.error.normwise.toPrecision(3)}, allowed ${v.error.allowed_normwise.toPrecision(3)}.`
    : ''
  const lines = [
    `Verdict: **${v.verdict}**${v.detail ? ` (${v.detail})` : ''}. ${error}`,
    ...v.kernels.map(
      (k) =>
        `- \`${k.kernel}\` replaces ${k.sites} ${k.sites === 1 ? 'place' : 'places'}; ${k.used ? 'with NaN in its place the output is NaN, so it is really used' : `NOT used: ${k.detail}`}`,
    ),
    compiled
      ? `torch.compile(model) beside it, same inputs and clock: ${compiled.point.toFixed(3)}x (${compiled.low.toFixed(3)} to ${compiled.high.toFixed(3)}).`
      : '',
    `${v.rounds.length} pairs of fresh processes, ${v.rounds.filter((r) => r.disturbed).length} of them disturbed and left out.`,
  ]
  return lines.filter((l) => l !== '').join('\n')
}

function usage(branch: string): string {
  return [
    `\`optimized/\` on branch \`${branch}\` is all that is needed:`,
    '```sh',
    `git checkout ${branch} -- optimized`,
    '```',
    '```python',
    'from optimized import apply',
    'report = apply(model)   # report.replaced says what; report.undo() takes it back',
    '```',
  ].join('\n')
}

function costPerPercent({ state, verification }: Ending): string {
  const gain = verification && modelSpeedup(verification)
  if (!gain || gain.point <= 1 || state.run.costUsd === 0) return ''
  return `, ${(state.run.costUsd / (100 * (gain.point - 1))).toFixed(3)} USD per percent gained`
}

/** More than a tenth is a defect, while there was anybody to ask. */
function idleShare({ idleMs, elapsedMs }: Run): string {
  return `The device had nothing to measure in ${percent(elapsedMs > 0 ? idleMs / elapsedMs : 0)} of that time.`
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`

export function duration(ms: number): string {
  const s = Math.round(ms / 1000)
  if (s < 120) return `${s} s`
  return s < 7200 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`
}

export function median(xs: number[]): number {
  const sorted = xs.toSorted((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  return sorted.length % 2 === 1
    ? (sorted[middle] ?? Number.NaN)
    : ((sorted[middle - 1] ?? Number.NaN) + (sorted[middle] ?? Number.NaN)) / 2
}
