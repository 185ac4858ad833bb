/** Carries out the machine's effects through the ports: the only place where decisions meet the world. */

import { evidenceOf } from './core/evidence.ts'
import { latency } from './core/judge.ts'
import { find } from './core/known.ts'
import { measures } from './core/slots.ts'
import { writtenHash } from './core/source-hash.ts'
import { Declined } from './effects/judge.ts'
import type { Evaluator, Perform, Request, World } from './ports.ts'
import type { Check, CommitSha, Counters, DeviceKind, Round, Side, Target, Timing } from './schema.ts'
import { sweep } from './sweep.ts'
import type { Asked, Baselines, Effect, Happened, State } from './types.ts'

const BASELINE_ROUNDS = 3 // fresh processes per alternative; enough to see whether they are close
const CONFIRM_ROUNDS = 3
const SWEEP = { cpu: 12, cuda: 60, rocm: 60 } // settings an experiment may try where nobody said otherwise

export function performer(world: World): Perform {
  let asking = new AbortController()
  let judging = new AbortController()
  return async (effect, state) => {
    if (effect.type === 'abort' || effect.type === 'release') {
      if (effect.type === 'abort') asking.abort()
      if (effect.type === 'release' || effect.what === 'all') judging.abort()
      if (asking.signal.aborted) asking = new AbortController()
      if (judging.signal.aborted) judging = new AbortController()
      if (effect.type === 'release') await world.evaluator.close()
      return null
    }
    const { signal } = measures(effect) ? judging : asking
    try {
      const happened = await perform(world, effect, state, signal)
      return measures(effect) && signal.aborted ? null : happened // what was cut off while it came in will be measured again
    } catch (error) {
      if (signal.aborted) return null
      if (error instanceof Declined && 'experiment' in effect)
        return { type: 'declined', number: effect.experiment.number, detail: error.message }
      throw error
    }
  }
}

async function perform(
  world: World,
  effect: Exclude<Effect, { type: 'abort' | 'release' }>,
  state: State,
  signal: AbortSignal,
): Promise<Happened | null> {
  const { evaluator, repo, ledger, fileOf } = world
  switch (effect.type) {
    case 'baseline':
      return baseline(world, effect.target, effect.commit, state.run.rules.counters, signal)
    case 'ask': {
      const { agent } = world
      const answer = await agent.propose(await requestFor(world, state, effect), signal)
      return { type: 'answered', id: effect.id, target: effect.target, incumbent: effect.incumbent, answer }
    }
    case 'wait':
      await sleep(effect.ms, signal)
      return { type: 'woke' }
    case 'sweep':
      return { type: 'swept', number: effect.number, quick: await sweep(world, effect, state.run.device, signal) }
    case 'commit':
      return {
        type: 'committed',
        number: effect.number,
        commit: await repo.candidate(effect.number, effect.proposal, effect.parent, effect.wall),
      }
    case 'check': {
      const path = await fileOf(effect.experiment.commit, effect.target.name)
      return {
        type: 'checked',
        number: effect.experiment.number,
        check: await evaluator.check(effect.target, path, { quick: false, large: false }, signal),
      }
    }
    case 'time': {
      const { commit, parent, number } = effect.experiment
      const sides = [await fileSide(fileOf, 'incumbent', parent, effect.target), await fileSide(fileOf, 'candidate', commit, effect.target)]
      return { type: 'timed', number, timing: await evaluator.time(effect.target, sides, effect.rounds, signal) }
    }
    case 'confirm': {
      const { commit, number } = effect.experiment
      const check = await checkLarge(world, effect.target, commit, state.run.device.kind, signal)
      if (check !== null && check.verdict !== 'pass') return { type: 'confirmed', number, timing: null, check }
      const files = [
        await fileSide(fileOf, 'candidate', commit, effect.target),
        await fileSide(fileOf, 'start', effect.start, effect.target),
      ]
      const timing = await timeWhatRuns(evaluator, effect.target, files, ['eager', 'vendor'], CONFIRM_ROUNDS, signal)
      const counters = state.run.rules.counters ? await count(world, effect.target, commit, signal) : null
      return { type: 'confirmed', number, timing, counters, check }
    }
    case 'settle': {
      const { experiment, message, wall, row } = effect
      if (message !== null) {
        const tip = await repo.keep(experiment, message, wall, (commit) => ledger.append({ ...row, commit }))
        return { type: 'settled', number: experiment.number, tip }
      }
      await ledger.append(row)
      return { type: 'settled', number: experiment.number, tip: await repo.reset() }
    }
    case 'row':
      await ledger.append(effect.row)
      return null
  }
}

/** Once more before a keep, on other inputs and beyond 2^31 elements. A CPU takes a minute and gigabytes for that. */
async function checkLarge(
  { evaluator, fileOf }: World,
  target: Target,
  commit: CommitSha,
  kind: DeviceKind,
  signal: AbortSignal,
): Promise<Check | null> {
  return kind === 'cpu' ? null : evaluator.check(target, await fileOf(commit, target.name), { quick: false, large: true }, signal)
}

/** The starting kernel and the fixed alternatives at the target's shapes, each in fresh processes. */
async function baseline(world: World, target: Target, commit: CommitSha, counted: boolean, signal: AbortSignal): Promise<Happened> {
  const { evaluator, fileOf } = world
  const check: Check = await evaluator.check(target, await fileOf(commit, target.name), { quick: false, large: false }, signal)
  const nothing = { type: 'baselined', target: target.name, check, timing: null, baselines: null } as const
  if (check.verdict !== 'pass') return { ...nothing, detail: `${check.verdict}: ${check.detail}` }
  const start = await fileSide(fileOf, 'start', commit, target)
  const timing = await timeWhatRuns(evaluator, target, [start], ['eager', 'vendor', 'compile'], BASELINE_ROUNDS, signal).catch(declined)
  if (typeof timing === 'string') return { ...nothing, detail: timing }
  const busy = timing.rounds.every((r) => r.disturbed !== null)
  // A keep pairs everything anew, so a coarse baseline is better than a kernel that is never tried.
  const rounds = busy ? timing.rounds.map((r) => ({ ...r, disturbed: null })) : timing.rounds
  const us = (side: string) => latency(rounds, side, target.shapes)
  const [started, eager] = [us('start'), us('eager')]
  if (timing.failure || !started || !eager) return { ...nothing, timing, detail: timing.failure?.detail ?? 'it could not be timed' }
  const calls = target.shapes.reduce((sum, s) => sum + s.calls, 0)
  const limit = target.shapes.reduce((sum, s, i) => sum + s.calls * (timing.limit_us[i] ?? 0), 0) / calls
  const baselines: Baselines = {
    start: started,
    eager,
    vendor: us('vendor'),
    compile: us('compile'),
    busy,
    roofline: { ...timing.roofline, limit_us: limit },
    shapes: target.shapes.map((_, i) => ({ bestUs: bestOf(rounds, target, i), limitUs: timing.limit_us[i] ?? 0 })),
  }
  const counters = counted ? await count(world, target, commit, signal) : null
  return { type: 'baselined', target: target.name, check, timing, baselines, detail: '', counters }
}

/** Where the judge cannot count, there is only less to know. */
async function count({ evaluator, fileOf }: World, target: Target, commit: CommitSha, signal: AbortSignal): Promise<Counters> {
  const path = await fileOf(commit, target.name)
  return evaluator.counters(target, path, signal).catch((error) => ({ kernels: [], detail: declined(error) }))
}

/** The fastest alternative at one shape alone. */
function bestOf(rounds: Round[], target: Target, shape: number): number | null {
  const times = ['eager', 'vendor', 'compile'].map((side) => evidenceOf(null, rounds, side, target.shapes).us[shape] ?? null)
  const known = times.filter((us) => us !== null)
  return known.length === 0 ? null : Math.min(...known)
}

/** What the judge cannot do here costs the run one kernel, not the night. */
function declined(error: unknown): string {
  if (error instanceof Declined) return error.message
  throw error
}

/**
 * Times files beside builtin alternatives; one that does not run here (no vendor call, no compiler) is left out.
 * Asks again, twice at most, while the device is too busy for a quiet round.
 */
async function timeWhatRuns(
  evaluator: Evaluator,
  target: Target,
  files: Side[],
  builtins: ('eager' | 'vendor' | 'compile')[],
  rounds: number,
  signal: AbortSignal,
): Promise<Timing> {
  let usable = builtins
  const all: Round[] = []
  for (let again = 1; ; ) {
    const sides: Side[] = [...files, ...usable.map((which) => ({ name: which, kind: 'builtin' as const, which }))]
    const timing = await evaluator.time(target, sides, rounds, signal)
    const failing = usable.find((which) => which === timing.failure?.side && which !== 'eager')
    if (failing) {
      usable = usable.filter((which) => which !== failing)
      continue
    }
    all.push(...timing.rounds)
    const quiet = all.filter((r) => r.disturbed === null).length
    if (timing.failure || quiet >= Math.min(2, rounds) || again++ === 3) return { ...timing, rounds: all }
  }
}

async function requestFor(world: World, state: State, { id, target: name, repair }: Asked): Promise<Request> {
  const { run, judging, proposing } = state
  const target = run.targets[name]
  if (!target) throw new Error(`the plan has no target '${name}'`)
  const judged = 'experiment' in judging ? judging.experiment.proposal : 'proposal' in judging ? judging.proposal : null
  const inFlight = [...(judged ? [judged] : []), ...proposing.ready]
    .filter((idea) => idea.target === name)
    .map((idea) => ({ hypothesis: idea.hypothesis, sourceHash: writtenHash(idea) }))
  return {
    id,
    repair,
    sweep: run.rules.sweep ?? SWEEP[run.device.kind],
    others: proposing.asked.filter((asked) => asked.target === name && asked.id !== id).length,
    target: target.target,
    device: run.device,
    incumbent: {
      commit: target.incumbent,
      source: await world.repo.source(target.incumbent, name),
      latencyUs: target.latency?.us ?? null,
      evidence: target.evidence,
    },
    baselines: target.baselines,
    attempts: target.attempts,
    inFlight,
    tried: (hash) => find(run.sources, hash) !== undefined,
    playbook: world.playbook(),
    steer: world.steer(),
    seed: run.rules.seed,
  }
}

async function fileSide(fileOf: World['fileOf'], name: string, commit: CommitSha, target: Target): Promise<Side> {
  return { name, kind: 'file', path: await fileOf(commit, target.name) }
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms)
    signal.addEventListener(
      'abort',
      () => {
        clearTimeout(timer)
        resolve()
      },
      { once: true },
    )
  })
}
