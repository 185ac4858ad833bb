/** Values for tests: a target, a run, rounds with a known truth, and a seeded source of chance. */
import type { Check, CommitSha, DeviceFacts, Round, Target, Timing } from '../../src/schema.ts'
import { CommitSha as Sha } from '../../src/schema.ts'
import type { Bill, Proposal, Rules, Run, TargetState } from '../../src/types.ts'

export const sha = (n: number): CommitSha => Sha.parse(n.toString(16).padStart(40, '0'))

export const device: DeviceFacts = {
  kind: 'cpu',
  name: 'Test CPU',
  torch: '2.13.0',
  triton: null,
  runtime: null,
  memory_gb: 24,
  cache_bytes: 1e8,
  measured: { gbps: 20, tflops: { fp32: 0.2, bf16: 0.4, fp16: 0.1 } },
  datasheet: null,
}

/** For a judge whose counters nobody asks for. */
export const uncounted = () => Promise.reject(new Error('nobody asked for counters'))

export const FREE: Bill = { costUsd: 0, tokens: 0, turns: 0 }

export const rules: Rules = {
  runMs: null,
  maxExperiments: null,
  maxCostUsd: null,
  maxTokens: null,
  maxTurns: null,
  agents: 'search',
  counters: false,
  inFlight: 1,
  freeFallback: false,
  minGain: 0.01,
  maxDiscards: 5,
  peak: 0.9,
  kernelMs: 7_200_000,
  targetSpeedup: 2,
  maxPairs: 12,
  sweep: null,
  seed: 1,
}

export function target(name: string, share = 0.2): Target {
  const shapes = [{ shape: [256, 1024], options: {}, weight: 1, calls: 4 }]
  return { name, op: name, op_file: null, dtype: 'fp32', backend: 'cpp', share, shapes, sites: [`layers.0.${name}`] }
}

export function targetState(name: string, share = 0.2): TargetState {
  return {
    target: target(name, share),
    startCommit: sha(1),
    incumbent: sha(1),
    baselines: null,
    latency: null,
    evidence: null,
    discardsInARow: 0,
    spentMs: 0,
    visits: 0,
    keeps: 0,
    attempts: [],
    left: null,
  }
}

export function run(names: string[], changed: Partial<Rules> = {}): Run {
  return {
    name: 'test-run',
    rules: { ...rules, ...changed },
    device,
    judgeHash: 'hash',
    targets: Object.fromEntries(names.map((name) => [name, targetState(name)])),
    order: names,
    current: null,
    best: sha(1),
    experiments: 0,
    counted: 0,
    interrupted: 0,
    settledAt: '2026-01-01T00:00:00.000Z',
    elapsedMs: 0,
    idleMs: 0,
    asks: 0,
    costUsd: 0,
    tokens: 0,
    turns: 0,
    dearest: { costUsd: 0, tokens: 0, turns: 0 },
    pace: { answerMs: null, verdictMs: null, sweepMs: null },
    sources: [],
    stop: null,
  }
}

export function proposal(name: string, source: string, basedOn = sha(1)): Proposal {
  return {
    target: name,
    basedOn,
    source,
    hypothesis: `try ${source}`,
    predictedGain: null,
    agent: 'search',
    disposable: true,
    thread: null,
    sweep: [],
    written: null,
    costUsd: 0,
    tokens: 0,
    turns: 0,
  }
}

export function check(verdict: Check['verdict'] = 'pass', detail = ''): Check {
  return {
    verdict,
    op: 'rmsnorm',
    backend: 'cpp',
    dtype: 'fp32',
    stages: [],
    detail,
    quick: false,
    flags: [],
    held: null,
    worst_of_tolerance: 0.2,
    max_abs_err: 1e-6,
    peak_mem_mb: 10,
    compiler: null,
    build_s: 0.5,
    wall_s: 1,
    source_sha256: 'a'.repeat(64),
    judge_hash: 'hash',
    sandbox: 'none',
  }
}

/** One round in which every side takes exactly the given microseconds. */
export function round(us: Record<string, number>, disturbed: string | null = null): Round {
  return { order: Object.keys(us), us: Object.fromEntries(Object.entries(us).map(([side, t]) => [side, [[t, t]]])), disturbed }
}

export function timing(rounds: Round[], failure: Timing['failure'] = null): Timing {
  return { rounds, roofline: { bound: 'memory', bytes: 1e6, flops: 1e6, limit_us: 1 }, limit_us: [1], clocks: null, failure, wall_s: 0.1 }
}

/** mulberry32: the same numbers on every machine. */
export function chance(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

export function normal(random: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
}
