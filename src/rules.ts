/** Flags -> the rules of a run. */
import type { Options } from './options.ts'
import type { Rules } from './types.ts'

const DEFAULT_MS = 8 * 3_600_000
const IN_FLIGHT = 12
const RESERVE_SHARE = 0.1 // of --hours, for admitting kernels and proving the whole model at the end
const RESERVE_MAX_MS = 300_000

/** Without a time or a count a run takes eight hours. */
export function readRules(options: Options): Rules {
  const limited = options['max-experiments'] ?? options['max-cost'] ?? options['max-tokens'] ?? options['max-turns']
  const whole = options.hours ?? (limited === undefined ? DEFAULT_MS : null)
  return {
    runMs: whole === null ? null : loopTime(whole),
    maxExperiments: options['max-experiments'] ?? null,
    maxCostUsd: options['max-cost'] ?? null,
    maxTokens: options['max-tokens'] ?? null,
    maxTurns: options['max-turns'] ?? null,
    agents: options.agent ?? 'search',
    inFlight: inFlight(options),
    freeFallback: /(^|,)\s*(search|inbox|command)\s*(,|$)/.test(options.agent ?? ''),
    minGain: options['min-gain'] ?? 0.01,
    maxDiscards: options['max-discards'] ?? 5,
    peak: options.peak ?? 0.9,
    kernelMs: options['kernel-hours'] ?? 7_200_000,
    targetSpeedup: options['target-speedup'] ?? 2,
    maxPairs: 12,
    sweep: options.sweep ?? null,
    seed: options.seed ?? 0,
    counters: options.counters ?? false,
  }
}

/** A resumed run keeps its rules; what is given again on the command line replaces them, counted from the run's start. */
export function changedRules(before: Rules, options: Options): Rules {
  const given = readRules(options)
  const extended =
    options.hours !== undefined ||
    options['max-experiments'] !== undefined ||
    options['max-cost'] !== undefined ||
    options['max-tokens'] !== undefined ||
    options['max-turns'] !== undefined
  return {
    ...before,
    ...(extended && limits(given)),
    ...(options.agent !== undefined && { agents: given.agents, inFlight: given.inFlight, freeFallback: given.freeFallback }),
    ...(options['min-gain'] !== undefined && { minGain: given.minGain }),
    ...(options['max-discards'] !== undefined && { maxDiscards: given.maxDiscards }),
    ...(options.peak !== undefined && { peak: given.peak }),
    ...(options['kernel-hours'] !== undefined && { kernelMs: given.kernelMs }),
    ...(options['target-speedup'] !== undefined && { targetSpeedup: given.targetSpeedup }),
    ...(options.sweep !== undefined && { sweep: given.sweep }),
    ...(options.counters !== undefined && { counters: given.counters }),
  }
}

const limits = ({ runMs, maxExperiments, maxCostUsd, maxTokens, maxTurns }: Rules): Partial<Rules> => {
  return { runMs, maxExperiments, maxCostUsd, maxTokens, maxTurns }
}

/** A provider answers many at once; a program on this machine would disturb the measurements, and the others have one idea at a time. */
function inFlight(options: Options): number {
  const provider = /(^|,)\s*(anthropic|openai)\s*(,|$)/.test(options.agent ?? '')
  return provider ? (options['in-flight'] ?? IN_FLIGHT) : 1
}

function loopTime(wholeMs: number): number {
  return wholeMs - Math.min(RESERVE_MAX_MS, wholeMs * RESERVE_SHARE)
}
