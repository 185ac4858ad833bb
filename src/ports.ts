/** The ports: through these the machine's decisions meet the world, and each can be another in a test. */

import type { Row } from './row.ts'
import type { Check, CommitSha, Counters, DeviceFacts, Side, Target, Timing } from './schema.ts'
import type { Answer, Attempt, Baselines, Effect, Event, Evidence, Experiment, Happened, Proposal, Repair, State } from './types.ts'

/** What an agent is told: everything about one kernel, nothing about git, the judge's workings or other agents. */
export type Request = {
  id: number // of the ask: the same when it is asked again after a crash
  repair: Repair | null // one's own candidate that failed; null asks for a new idea
  sweep: number // settings of marked constants that one experiment may try; under 2 there is none
  others: number // requests for this kernel that are being answered at the same moment
  target: Target
  device: DeviceFacts
  incumbent: { commit: CommitSha; source: string; latencyUs: number | null; evidence: Evidence | null }
  baselines: Baselines | null
  attempts: Attempt[]
  inFlight: { hypothesis: string; sourceHash: string }[] // being judged now
  tried: (sourceHash: string) => boolean
  playbook: string // program.md
  steer: string // steer.md, '' when there is none
  seed: number
}

export interface Agent {
  readonly name: string
  /** Never throws for a bad answer or a provider that is down: those are Answers. Rejects only on abort. */
  propose(request: Request, signal: AbortSignal): Promise<Answer>
}

export interface Evaluator {
  /** Correctness; `large`: also beyond 2^31 elements, where memory allows. Never throws for a bad kernel: wrong, crashed and hung are all Checks. Throws ToolError when the judge itself fails. */
  check(target: Target, path: string, options: { quick: boolean; large: boolean }, signal?: AbortSignal): Promise<Check>
  /** `rounds` rounds of fresh processes, one per side, visited in random order. */
  time(target: Target, sides: Side[], rounds: number, signal?: AbortSignal): Promise<Timing>
  /** What the device's own counters say of one call; for whoever writes the next kernel, and for no verdict. */
  counters(target: Target, path: string, signal?: AbortSignal): Promise<Counters>
  /** Lets go of the device until the next question. */
  close(): Promise<void>
}

export interface Repo {
  /** Commits a candidate under refs/autokernel/<run>/<number>; the same inputs give the same id. */
  candidate(number: number, proposal: Proposal, parent: CommitSha, wall: string): Promise<CommitSha>
  /**
   * Advances the run's branch from the experiment's parent by one commit with the candidate's tree; compare-and-swap.
   * `record` is awaited before the branch moves: no kept commit without its row. Resolves to the new tip.
   */
  keep(experiment: Experiment, message: string, wall: string, record: (commit: CommitSha) => Promise<void>): Promise<CommitSha>
  /** git reset --hard of the run's own worktree to the branch's tip, which it resolves to. */
  reset(): Promise<CommitSha>
  /** Text of optimized/<kernel>/kernel.py at a commit. */
  source(commit: CommitSha, kernel: string): Promise<string>
}

export interface Journal {
  /** Appends and fsyncs before it resolves. */
  append(event: Event): Promise<void>
}

export interface Clock {
  /** Puts the next number, the run's time and the date on what happened. */
  stamp(happened: Happened): Event
}

export interface Ledger {
  /** Appends one whole row and fsyncs; a row already there (same run and experiment and kernel) is not written twice. */
  append(row: Row): Promise<void>
}

/** Carries out one effect and says what happened; null when it was cut off or nothing waits for it. Rejects on our own failures only. */
export type Perform = (effect: Effect, state: State) => Promise<Happened | null>

/** All of them together, and the texts and files that belong to a run. */
export type World = {
  evaluator: Evaluator
  agent: Agent
  repo: Repo
  ledger: Ledger
  /** A file that holds the kernel as it is at a commit, for the judge to read. */
  fileOf: (commit: CommitSha, kernel: string) => Promise<string>
  /** Sources in files that the judge can read, gone when `use` has ended. */
  withFiles: <T>(sources: string[], use: (paths: string[]) => Promise<T>) => Promise<T>
  playbook: () => string
  steer: () => string
}
