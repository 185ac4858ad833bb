/** The nouns: what a run works on, what can happen, what is to be done. */
import type { Known } from './core/known.ts'
import type { Row } from './row.ts'
import type { Check, CommitSha, Compiler, Counters, DeviceFacts, Roofline, Round, Target, Timing } from './schema.ts'

export type { Target } from './schema.ts'

/** A point estimate with its confidence bounds; ratios are baseline time / candidate time, above 1 is faster. */
export type Interval = { point: number; low: number; high: number }

/** What an answer cost. A turn is an answer of a model, whatever it was worth. */
export type Bill = { costUsd: number; tokens: number; turns: number }

/** Constants marked '# tune:' set anew, as they stand in the source, and what the idea then is. */
export type Setting = { values: Record<string, string>; change: string; hypothesis: string; quick: Quick | null }

/** What quick timing said of one setting: its speed over the incumbent's in each round that it took part in; no gain: it did not run. */
export type Quick = { gain: number | null; ratios: number[]; detail: string }

/** The conversation that an idea came out of: the ask that it ends with, and how many repairs it holds. */
export type Thread = { ask: number; repairs: number }

/** An idea for one kernel, whole: what to run instead of the incumbent, and why it should be faster. */
export type Proposal = {
  target: string
  basedOn: CommitSha // the incumbent it was written against
  source: string
  hypothesis: string
  predictedGain: number | null // 1.05 means 5 % faster
  agent: string
  disposable: boolean // costs nothing to have again: dropped when the incumbent it was written against is gone
  thread: Thread | null // null: whoever had it cannot be asked to repair it
  sweep: Setting[] // other settings of this very source; after the sweep all that were timed
  written: string | null // the source before its sweep chose other constants
} & Bill

/** A candidate that goes back to whoever wrote it, with the judge's words. */
export type Repair = { experiment: number; proposal: Proposal; outcome: DiscardReason; detail: string }

/** What an agent can answer. Failures an agent expects are data; a throw is a bug and ends the run. */
export type Answer =
  | { kind: 'proposal'; proposal: Proposal }
  | { kind: 'exhausted'; why: string } // nothing left to try for this incumbent
  | ({ kind: 'invalid'; why: string; hypothesis: string; agent: string } & Bill) // it answered, unusably
  | ({ kind: 'unavailable'; why: string } & Bill) // the provider is down for now; ask again later
  | { kind: 'refused'; why: string } // credentials or money: ends the run, exit 4

export type Experiment = {
  number: number
  proposal: Proposal
  commit: CommitSha
  parent: CommitSha
  startedAt: number
  cuts: number // how often a crash has cut off its measurement
}

export type Verdict =
  | { kind: 'keep'; gain: Interval; pairs: number }
  | { kind: 'discard'; why: DiscardReason; gain: Interval | null; detail: string }
  | { kind: 'hold'; why: 'suspect'; gain: Interval | null; detail: string }

export type DiscardReason = 'slower' | 'within-noise' | 'wrong' | 'crash' | 'timeout' | 'invalid' | 'interrupted'

/** How fast one side is on the target's weighted shapes, in microseconds per call. */
export type Latency = { us: number; ci95: number }

/** Times of the fixed alternatives at a target's shapes, measured when the target was first entered. */
export type Baselines = {
  start: Latency
  eager: Latency
  vendor: Latency | null
  compile: Latency | null
  roofline: Roofline
  busy: boolean // no quiet moment could be had; the times are those of a device that others used too
  shapes: { bestUs: number | null; limitUs: number }[] // the fastest alternative and the roofline, each shape for itself
}

/** What a source's measurement showed beyond one number, in the order of the target's shapes; gains are over the incumbent of its time. */
export type Evidence = { compiler: Compiler | null; counters: Counters | null; us: (number | null)[]; gains: (number | null)[] }

/** One line of a kernel's memory: enough to avoid repeating it and to learn from it. */
export type Attempt = {
  experiment: number
  hypothesis: string
  agent: string
  outcome: Verdict['kind'] | DiscardReason
  gain: number | null
  predictedGain: number | null
  detail: string // first line of why, '' for a keep
  sourceHash: string
  points: { change: string; gain: number | null }[] // of its sweep, as far as they were timed
  evidence: Evidence | null
}

export type LeaveReason = 'plateau' | 'peak' | 'time' | 'target-speedup' | 'exhausted' | 'broken'

export type TargetState = {
  target: Target
  startCommit: CommitSha
  incumbent: CommitSha
  baselines: Baselines | null
  latency: Latency | null // of the incumbent, as last paired
  evidence: Evidence | null // of the incumbent
  discardsInARow: number
  spentMs: number // on this kernel, counted while it is the current one
  visits: number
  keeps: number
  attempts: Attempt[]
  left: LeaveReason | null
}

/** Limits and rules of a run, fixed at its start. */
export type Rules = {
  runMs: number | null // for the loop; the end of the run has its own reserve
  maxExperiments: number | null
  maxCostUsd: number | null
  maxTokens: number | null
  maxTurns: number | null
  agents: string // as --agent names them, for a run that is resumed without it
  inFlight: number // requests to a model at the same time, at most; how many there are follows from the pace
  freeFallback: boolean // an agent that costs nothing goes on when the money is spent
  minGain: number // 0.01
  maxDiscards: number
  peak: number // 0.9 of the roofline
  kernelMs: number
  targetSpeedup: number // over the best baseline
  maxPairs: number
  sweep: number | null // settings an experiment may try; null: as many as the device is quick at
  seed: number
  counters: boolean // ncu looks at each starting kernel and at each that is kept
}

export type StopReason = 'hours' | 'max-experiments' | 'max-cost' | 'max-tokens' | 'max-turns' | 'exhausted' | 'stopped' | 'refused'

export type Run = {
  name: string
  rules: Rules
  device: DeviceFacts
  judgeHash: string
  targets: Record<string, TargetState>
  order: string[] // target names, by rank
  current: string | null
  best: CommitSha // tip of the run's branch
  experiments: number // numbers given out so far
  counted: number // experiments with a verdict
  interrupted: number // of these, how many no budget pays for: the judge or the machine failed, not the idea
  settledAt: string // when the last verdict was in, ISO 8601; the date of what is committed at the end
  elapsedMs: number
  idleMs: number // of it, in which the device had nothing to measure
  asks: number // numbers given out so far
  costUsd: number
  tokens: number
  turns: number
  dearest: Bill // the most that one answer has cost
  pace: { answerMs: number | null; verdictMs: number | null; sweepMs: number | null } // a verdict with its sweep; moving averages
  sources: Known // normalized source hash -> experiment
  stop: { reason: StopReason; detail: string; now: boolean } | null // now: whatever is being judged is left for a resumed run
}

/** A request that an agent is working on. */
export type Asked = { id: number; target: string; incumbent: CommitSha; repair: Repair | null; since: number }

/** Ideas are written while another is being judged, as many at a time as keep the judge busy. */
export type State = {
  run: Run
  paused: boolean // the device is free and the clock stands still; an answer that is being written may still come in
  proposing: {
    asked: Asked[]
    ready: Proposal[] // in the order they will be judged
    repairs: Repair[] // to be asked for before any new idea
    waiting: 'provider' | 'verdict' | null // nobody is asked meanwhile
  }
  judging:
    | { phase: 'idle' }
    | { phase: 'baselining'; target: string }
    | { phase: 'sweeping'; number: number; proposal: Proposal; parent: CommitSha; startedAt: number; wall: string; cuts: number }
    | { phase: 'committing'; number: number; proposal: Proposal; parent: CommitSha; startedAt: number; wall: string }
    | { phase: 'checking'; experiment: Experiment }
    | { phase: 'timing'; experiment: Experiment; check: Check; rounds: Round[]; timing: Timing | null }
    | { phase: 'confirming'; experiment: Experiment; check: Check; rounds: Round[]; timing: Timing; verdict: Verdict }
    | {
        phase: 'settling'
        experiment: Experiment
        verdict: Verdict
        latency: Latency | null
        evidence: Evidence
        row: Row
        message: string | null
        wall: string
        rows: Row[] // of answers that came meanwhile: they are written after this one's
      }
}

/** What happened. `at` is the run's own clock in ms (it stands still while the run is down); `wall` is ISO 8601. */
export type Happened =
  | { type: 'started'; rules: Rules } // at the start, and again whenever the run is resumed
  | {
      type: 'baselined'
      target: string
      check: Check
      timing: Timing | null
      baselines: Baselines | null
      detail: string
      counters?: Counters | null
    }
  | { type: 'answered'; id: number; target: string; incumbent: CommitSha; answer: Answer }
  | { type: 'swept'; number: number; quick: (Quick | null)[] } // of the source as written, then of each setting; null: not timed
  | { type: 'committed'; number: number; commit: CommitSha }
  | { type: 'checked'; number: number; check: Check }
  | { type: 'timed'; number: number; timing: Timing } // candidate against incumbent
  | { type: 'confirmed'; number: number; timing: Timing | null; counters?: Counters | null; check?: Check | null } // checked and timed anew, before a keep; no timing: it failed the check
  | { type: 'declined'; number: number; detail: string } // the judge works, but could not judge this
  | { type: 'settled'; number: number; tip: CommitSha }
  | { type: 'woke' } // a wait is over
  | { type: 'deadline' }
  | { type: 'paused' }
  | { type: 'resumed' }
  | { type: 'stop'; reason: StopReason; detail: string; now: boolean }
export type Event = Happened & { seq: number; at: number; wall: string }

/** What is to be done. Each effect starts without blocking; its result comes back as an event. */
export type Effect =
  | { type: 'baseline'; target: Target; commit: CommitSha }
  | ({ type: 'ask' } & Asked)
  | { type: 'wait'; ms: number }
  | { type: 'sweep'; number: number; proposal: Proposal; parent: CommitSha; target: Target; bytes: number; budgetMs: number } // bytes: of a call
  | { type: 'commit'; number: number; proposal: Proposal; parent: CommitSha; wall: string }
  | { type: 'check'; experiment: Experiment; target: Target }
  | { type: 'time'; experiment: Experiment; target: Target; rounds: number }
  | { type: 'confirm'; experiment: Experiment; target: Target; start: CommitSha }
  | { type: 'settle'; experiment: Experiment; verdict: Verdict; row: Row; message: string | null; wall: string } // message: of the kept commit
  | { type: 'row'; row: Row } // a baseline row
  | { type: 'abort'; what: 'all' | 'asking' } // cut off whatever the judge and the agents are doing, or the agents alone
  | { type: 'release' } // cut off the measurement and let go of the device
