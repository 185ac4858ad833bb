/** The judge's report on one file: correctness, then speed against the alternatives. */
import type { Check, Compiler, Counters, DeviceFacts, Round, Sanitized, ShapeCase, Timing } from '../schema.ts'
import type { Interval } from '../types.ts'
import { beatsPhysics, latency, speedup } from './judge.ts'

export type Ratio = Interval & { stored: boolean }

export type BenchReport = Omit<Check, 'verdict'> & {
  verdict: Check['verdict']
  latency_us: number | null
  ci95_us: number | null
  ratio: { incumbent: Ratio | null; eager: Ratio | null; vendor: Ratio | null; compile: Ratio | null }
  roofline: { bound: string; pct: number; bytes: number; flops: number; limit_us: number; measured_peak: DeviceFacts['measured'] } | null
  shapes: { shape: number[]; options: ShapeCase['options']; latency_us: number; ratio_eager: number | null; limit_us: number | null }[]
  device: DeviceFacts
  clocks: string | null
  untimed: string | null // why there are no times where they were asked for
  counters?: Counters
  sanitize?: Sanitized
}

/** What NVIDIA's tools were asked to look at besides. */
export type Looked = { counters?: Counters; sanitize?: Sanitized }

export function benchReport(
  check: Check,
  timing: Timing | null,
  shapes: ShapeCase[],
  device: DeviceFacts,
  looked: Looked = {},
): BenchReport {
  const rounds = timing?.rounds ?? []
  const time = latency(rounds, 'candidate', shapes)
  const against = (base: string): Ratio | null => {
    const ratio = speedup(rounds, base, 'candidate', shapes)
    return ratio && { ...ratio, stored: false }
  }
  const trusted = ['eager', 'vendor', 'compile'].map((side) => latency(rounds, side, shapes)?.us ?? Number.POSITIVE_INFINITY)
  const impossible = time && timing ? beatsPhysics(time.us, timing.roofline.limit_us, Math.min(...trusted)) : null
  const failure = timing?.failure?.side === 'candidate' ? timing.failure : null
  return {
    ...check,
    verdict: failure?.kind ?? (impossible && check.verdict === 'pass' ? 'suspect' : looked.sanitize?.errors ? 'wrong' : check.verdict),
    detail: failure?.detail ?? impossible ?? (looked.sanitize?.errors ? looked.sanitize.detail : check.detail),
    latency_us: time?.us ?? null,
    ci95_us: time?.ci95 ?? null,
    ratio: { incumbent: against('incumbent'), eager: against('eager'), vendor: against('vendor'), compile: against('compile') },
    roofline:
      timing && time ? { ...timing.roofline, pct: (100 * timing.roofline.limit_us) / time.us, measured_peak: device.measured } : null,
    shapes: timing ? shapes.map((shape, i) => perShape(rounds, shape, i, timing)) : [],
    device,
    clocks: timing?.clocks ?? null,
    untimed: timing && !time && !failure ? whyUntimed(timing) : null,
    ...looked,
  }
}

function whyUntimed({ failure, rounds }: Timing): string {
  if (failure) return `${failure.side}: ${failure.kind}: ${failure.detail}`
  const disturbed = rounds.flatMap((round) => round.disturbed ?? [])
  return `${disturbed.length} of ${rounds.length} pairs were disturbed (${disturbed[0] ?? 'no reason given'}); try again when the machine is quiet`
}

function perShape(rounds: Round[], shape: ShapeCase, index: number, timing: Timing): BenchReport['shapes'][number] {
  const only = rounds.map((r) => ({ ...r, us: Object.fromEntries(Object.entries(r.us).map(([side, us]) => [side, [us[index] ?? []]])) }))
  return {
    shape: shape.shape,
    options: shape.options,
    latency_us: latency(only, 'candidate', [shape])?.us ?? Number.NaN,
    ratio_eager: speedup(only, 'eager', 'candidate', [shape])?.point ?? null,
    limit_us: timing.limit_us[index] ?? null,
  }
}

export function benchText(report: BenchReport): string {
  const stages = report.stages.map(
    (s) =>
      `  ${s.status === 'pass' ? 'ok  ' : s.status === 'fail' ? 'FAIL' : '-   '} ${s.name.padEnd(12)} ${String(s.cases).padStart(3)} cases  ${s.seconds.toFixed(2)} s${s.detail ? `\n       ${s.detail}` : ''}`,
  )
  const ratio = (name: keyof BenchReport['ratio']) => {
    const r = report.ratio[name]
    return r && `  ${r.point.toFixed(3)}x over ${name} (95 % ${r.low.toFixed(3)} to ${r.high.toFixed(3)})`
  }
  const speed =
    report.latency_us === null
      ? report.untimed === null
        ? []
        : [`not timed: ${report.untimed}`]
      : [
          `${report.latency_us.toFixed(2)} us a call (+-${(report.ci95_us ?? 0).toFixed(2)})${report.roofline ? `, ${report.roofline.pct.toFixed(0)} % of the ${report.roofline.bound} roofline` : ''}`,
          ...(['incumbent', 'eager', 'vendor', 'compile'] as const).map(ratio).filter((line): line is string => line !== null),
          ...(report.shapes.length > 1 ? report.shapes : []).map(
            (s) =>
              `  ${s.shape.join('x').padEnd(20)} ${s.latency_us.toFixed(2)} us${s.ratio_eager ? `  ${s.ratio_eager.toFixed(2)}x over eager` : ''}`,
          ),
        ]
  return [
    `${report.op} ${report.dtype} on ${report.device.name}: ${report.verdict.toUpperCase()}${report.quick ? ' (quick: primary shape only)' : ''}`,
    ...stages,
    ...(report.verdict === 'pass' ? [] : report.detail ? [`  ${report.detail}`] : []),
    ...compilerLines(report.compiler),
    ...counterLines(report.counters ?? null),
    ...sanitizerLines(report.sanitize),
    ...speed,
    `  judge ${report.judge_hash.slice(0, 12)}, sandbox: ${report.sandbox}, ${report.wall_s.toFixed(1)} s (${report.build_s.toFixed(1)} s compiling)`,
  ].join('\n')
}

/** A line a kernel, and one for a C++ library's vectors. */
export function compilerLines(compiler: Compiler | null): string[] {
  if (compiler === null) return []
  const kernels = compiler.kernels.map((k) => {
    const said = [
      k.registers === null ? '' : `${k.registers} registers`,
      k.spills === null ? '' : `${k.spills || 'none'} spilled`,
      k.shared_bytes === null ? '' : `${k.shared_bytes} bytes of shared memory`,
      k.occupancy === null ? '' : `occupancy ${(100 * k.occupancy).toFixed(0)} %`,
    ].filter((text) => text !== '')
    return `  compiled: ${k.name}: ${said.join(', ') || 'the driver does not tell'}`
  })
  if (compiler.vector_width === null) return kernels
  const vectors = compiler.vector_width === 0 ? 'no vector instructions' : `${compiler.vector_width}-bit vectors`
  const stores = compiler.kernels.length === 0 && compiler.spills !== null ? `, ${compiler.spills} stores of vectors to the stack` : ''
  return [...kernels, `  compiled: C++ with ${vectors}${stores}`]
}

/** A line a launch: how busy the device was, and what warps waited for. */
export function counterLines(counters: Counters | null): string[] {
  if (counters === null) return []
  if (counters.kernels.length === 0) return [`  counted: ${counters.detail}`]
  const percent = (share: number): string => `${(100 * share).toFixed(0)} %`
  return counters.kernels.map(({ name, us, memory, units, occupancy, stalls }) => {
    const busy = Object.entries({ memory, units, occupancy }).flatMap(([what, share]) =>
      share === null ? [] : [`${what} ${percent(share)}`],
    )
    const waits = stalls.map(([what, share]) => `${what} ${percent(share)}`).join(', ')
    return `  counted: ${name}: ${us} us under ncu, ${busy.join(', ')}${waits ? `; warps wait for ${waits}` : ''}`
  })
}

function sanitizerLines(found: Sanitized | undefined): string[] {
  if (found === undefined) return []
  if (found.errors === null) return [`  compute-sanitizer: ${found.detail}`]
  return [`  compute-sanitizer: ${found.errors === 0 ? 'no wrong access' : `${found.errors} wrong accesses: ${found.detail}`}`]
}
