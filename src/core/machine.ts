/** The run as a pure machine: what has happened -> what is to be done. Files, processes, clocks and chance live elsewhere. */
import type { Check } from '../schema.ts'
import type { Effect, Event, Experiment, Run, State, StopReason, TargetState, Verdict } from '../types.ts'
import { answered, withRepair } from './answers.ts'
import { stillAsked } from './asking.ts'
import { average, proceed, put, remember, targetOf, tick } from './edit.ts'
import { evidenceOf } from './evidence.ts'
import { beatsPhysics, decide } from './judge.ts'
import { add } from './known.ts'
import { baselineRows, candidateLatency, experimentRow, keepMessage, type Measured } from './record.ts'
import { fillSlots, measures, pending } from './slots.ts'
import { normalizedHash } from './source-hash.ts'
import { swept, unswept } from './sweep.ts'

export type Step = { state: State; effects: Effect[] }
type On<T extends Event['type']> = Event & { type: T }

const MAX_CUTS = 2 // a measurement that takes the machine down may well do so each time

export function initialState(run: Run): State {
  return { run, paused: false, proposing: { asked: [], ready: [], repairs: [], waiting: null }, judging: { phase: 'idle' } }
}

export function step(state: State, event: Event): Step {
  const done = react(tick(state, event), event)
  const next = fillSlots(done.state, event.at, event.wall)
  const effects = [...done.effects, ...next.effects]
  // What a paused run may not start is taken up from the state when it goes on.
  return { state: next.state, effects: next.state.paused ? effects.filter((effect) => !measures(effect)) : effects }
}

/** True when nothing more will be asked for and nothing that must end is under way. */
export function finished({ run, judging }: State): boolean {
  return run.stop !== null && (judging.phase === 'idle' || (run.stop.now && judging.phase !== 'settling'))
}

function react(state: State, event: Event): Step {
  const { judging } = state
  const number = 'experiment' in judging ? judging.experiment.number : 'number' in judging ? judging.number : null
  // A result that nobody waits for any more (its slot was cut off) changes nothing.
  if ('number' in event && event.number !== number) return only(state)
  switch (event.type) {
    case 'started':
      return restarted(state, event)
    case 'baselined':
      return baselined(state, event)
    case 'answered':
      return answered(state, event)
    case 'swept':
      return judging.phase === 'sweeping' ? swept(state, judging, event) : only(state)
    case 'committed':
      return committed(state, event)
    case 'checked':
      return checked(state, event)
    case 'timed':
      if (judging.phase !== 'timing') return only(state)
      return weigh({ ...state, judging: { ...judging, rounds: [...judging.rounds, ...event.timing.rounds], timing: event.timing } }, event)
    case 'confirmed': {
      if (judging.phase !== 'confirming') return only(state)
      const { experiment, verdict, rounds } = judging
      const check = event.check ?? judging.check
      const failure = check.verdict === 'pass' ? event.timing?.failure : { side: 'candidate', kind: check.verdict, detail: check.detail }
      const broken = failure?.side === 'candidate' ? failed(failure.kind, failure.detail) : null
      const measured = { check, rounds, confirmed: failure ? null : event.timing, counters: event.counters }
      return settle(state, experiment, broken ?? verdict, measured, event)
    }
    case 'declined':
      return declined(state, event)
    case 'settled':
      return settled(state, event)
    case 'woke':
      return only(proceed(state, 'provider'))
    case 'deadline':
      return stop(state, 'hours', 'the time is up', true)
    case 'stop':
      return stop(state, event.reason, event.detail, event.now)
    case 'paused':
      return state.paused || finished(state) ? only(state) : { state: { ...state, paused: true }, effects: [{ type: 'release' }] }
    case 'resumed':
      return goOn(state)
  }
}

/** The first start, or one after a stop or a crash. What a crash cut off is measured again; cut off twice, that is its verdict. */
function restarted(state: State, event: On<'started'>): Step {
  const { judging } = state
  const crashed = state.run.stop === null && !state.paused // whoever stops in order says so in the journal, and a pause cuts nothing off
  const { rules } = event
  const late = rules.runMs !== null && state.run.elapsedMs >= rules.runMs
  const stop = late ? ({ reason: 'hours', detail: 'the time is up', now: true } as const) : null
  const run: Run = { ...state.run, rules, stop }
  const fresh: State = { ...state, paused: false, run, proposing: stillAsked({ ...state, run }) }
  const cuttable =
    judging.phase === 'sweeping' || judging.phase === 'checking' || judging.phase === 'timing' || judging.phase === 'confirming'
  if (!crashed || !cuttable) return { state: fresh, effects: late ? [] : pending(fresh) }
  if (judging.phase === 'sweeping') {
    const swept: State = { ...fresh, judging: { ...judging, cuts: judging.cuts + 1 } }
    const next = judging.cuts + 1 < MAX_CUTS ? swept : { ...fresh, judging: unswept(judging) } // it may be the sweep that brings the machine down
    return { state: next, effects: late ? [] : pending(next) }
  }
  const experiment = { ...judging.experiment, cuts: judging.experiment.cuts + 1 }
  const again: State = { ...fresh, judging: { ...judging, experiment } }
  if (experiment.cuts < MAX_CUTS) return { state: again, effects: late ? [] : pending(again) }
  const verdict = failed('interrupted', `its measurement was cut off ${experiment.cuts} times by a crash of the run or the machine`)
  const cut = settle(again, experiment, verdict, measuredSoFar(judging), event)
  return { state: cut.state, effects: [...cut.effects, ...pending({ ...cut.state, judging: { phase: 'idle' } })] }
}

function baselined(state: State, event: On<'baselined'>): Step {
  if (state.judging.phase !== 'baselining' || state.judging.target !== event.target) return only(state)
  const before = targetOf(state.run, event.target)
  const { baselines } = event
  const evidence = evidenceOf(event.check.compiler, event.timing?.rounds ?? [], 'start', before.target.shapes, event.counters)
  const target: TargetState = baselines ? { ...before, baselines, latency: baselines.start, evidence } : { ...before, left: 'broken' }
  const rows = baselineRows(state.run, target, event.check, event.detail, event.wall)
  return { state: { ...put(state, target), judging: { phase: 'idle' } }, effects: rows.map((row) => ({ type: 'row', row })) }
}

function committed(state: State, event: On<'committed'>): Step {
  const { judging, run } = state
  if (judging.phase !== 'committing') return only(state)
  const { number, proposal, parent, startedAt } = judging
  const experiment: Experiment = { number, proposal, commit: event.commit, parent, startedAt, cuts: 0 }
  const known = { ...run, sources: add(run.sources, normalizedHash(proposal.source), number) }
  return {
    state: { ...state, run: known, judging: { phase: 'checking', experiment } },
    effects: [{ type: 'check', experiment, target: targetOf(run, proposal.target).target }],
  }
}

function checked(state: State, event: On<'checked'>): Step {
  if (state.judging.phase !== 'checking') return only(state)
  const { experiment } = state.judging
  const { check } = event
  if (check.verdict === 'pass') return weigh({ ...state, judging: { phase: 'timing', experiment, check, rounds: [], timing: null } }, event)
  return settle(state, experiment, failed(check.verdict, check.detail), { check, rounds: [], confirmed: null }, event)
}

/** Asks the pairs so far for a verdict, or for more pairs. */
function weigh(state: State, event: Event): Step {
  const { run, judging } = state
  if (judging.phase !== 'timing') return only(state)
  const { experiment, check, rounds, timing } = judging
  const { target, baselines, startCommit } = targetOf(run, experiment.proposal.target)
  const measured: Measured = { check, rounds, confirmed: null }
  if (timing?.failure) {
    const { side, kind, detail } = timing.failure
    const verdict =
      side === 'candidate' ? failed(kind, detail) : failed('interrupted', `the incumbent failed beside it (${kind}): ${detail}`)
    return settle(state, experiment, verdict, measured, event)
  }
  const decision = decide(rounds, target.shapes, run.rules)
  if (decision.kind === 'more') return { state, effects: [{ type: 'time', experiment, target, rounds: decision.rounds }] }
  const { verdict } = decision
  if (verdict.kind !== 'keep' || timing === null) return settle(state, experiment, verdict, measured, event)

  const us = candidateLatency(measured, target.shapes)?.us
  const trusted =
    baselines && Math.min(...[baselines.eager, baselines.vendor, baselines.compile].map((b) => b?.us ?? Number.POSITIVE_INFINITY))
  const impossible = us !== undefined && baselines ? beatsPhysics(us, baselines.roofline.limit_us, trusted) : null
  const odd = impossible ?? (check.held && `it wins, and its source needs a person's look: ${check.held}`)
  if (odd) return settle(state, experiment, { kind: 'hold', why: 'suspect', gain: verdict.gain, detail: odd }, measured, event)
  return {
    state: { ...state, judging: { phase: 'confirming', experiment, check, rounds, timing, verdict } },
    effects: [{ type: 'confirm', experiment, target, start: startCommit }],
  }
}

/** Costs the experiment; a kernel that cannot be judged again and again is left. A keep that was only to be measured anew stays one. */
function declined(state: State, event: On<'declined'>): Step {
  const { judging } = state
  if (judging.phase === 'confirming')
    return settle(state, judging.experiment, judging.verdict, { check: judging.check, rounds: judging.rounds, confirmed: null }, event)
  if (judging.phase !== 'checking' && judging.phase !== 'timing') return only(state)
  return settle(state, judging.experiment, failed('interrupted', event.detail), measuredSoFar(judging), event)
}

function measuredSoFar(judging: State['judging']): Measured {
  return { check: 'check' in judging ? judging.check : null, rounds: 'rounds' in judging ? judging.rounds : [], confirmed: null }
}

/** The verdict is known: one effect moves git and writes the row, in that order. */
function settle(state: State, experiment: Experiment, verdict: Verdict, measured: Measured, { at, wall }: Event): Step {
  const target = targetOf(state.run, experiment.proposal.target)
  const row = experimentRow(state.run, target, experiment, verdict, measured, { at, wall })
  const message = verdict.kind === 'keep' ? keepMessage(state.run, target, experiment, verdict, measured) : null
  const latency = verdict.kind === 'keep' ? candidateLatency(measured, target.target.shapes) : target.latency
  const evidence = evidenceOf(measured.check?.compiler ?? null, measured.rounds, 'candidate', target.target.shapes, measured.counters)
  return {
    state: { ...state, judging: { phase: 'settling', experiment, verdict, latency, evidence, row, message, wall, rows: [] } },
    effects: [{ type: 'settle', experiment, verdict, row, message, wall }],
  }
}

function settled(state: State, { tip, at, wall }: On<'settled'>): Step {
  if (state.judging.phase !== 'settling') return only(state)
  const { experiment, verdict, latency, evidence, rows } = state.judging
  const remembered = remember(state, experiment, verdict, evidence)
  const target = targetOf(remembered.run, experiment.proposal.target)
  const kept = verdict.kind === 'keep'
  // A repair is one more try of an idea that has counted already.
  const counts = !wasCut(verdict) && !experiment.proposal.thread?.repairs
  const next = put(remembered, {
    ...target,
    latency,
    evidence: kept ? evidence : target.evidence,
    incumbent: kept ? tip : target.incumbent,
    keeps: target.keeps + (kept ? 1 : 0),
    discardsInARow: kept ? 0 : target.discardsInARow + (counts ? 1 : 0),
  })
  const { pace, counted, interrupted } = next.run
  const run: Run = {
    ...next.run,
    best: tip,
    counted: counted + 1,
    interrupted: interrupted + (wasCut(verdict) ? 1 : 0),
    settledAt: wall,
    pace: { ...pace, verdictMs: average(pace.verdictMs, at - experiment.startedAt) },
  }
  const free = proceed({ ...next, run, judging: { phase: 'idle' } }, 'verdict')
  return { state: withRepair(free, experiment, verdict), effects: rows.map((row) => ({ type: 'row', row })) }
}

/**
 * Now: everything is cut off. Else the experiment in hand is finished, for which a paused run goes on.
 * Whom was asked stays asked: a resumed run asks the same again, and an answer that was paid for meanwhile is not paid for twice.
 */
function stop(state: State, reason: StopReason, detail: string, now: boolean): Step {
  if (state.run.stop?.now) return only(state)
  const stopped: State = { ...state, run: { ...state.run, stop: { reason, detail, now } } }
  if (now) return { state: stopped, effects: [{ type: 'abort', what: 'all' }] }
  const { state: going, effects } = goOn(stopped)
  const { asked, waiting } = state.proposing
  const asking = asked.length > 0 || waiting === 'provider'
  return { state: going, effects: asking ? [{ type: 'abort', what: 'asking' }, ...effects] : effects }
}

/** Takes up what the pause cut off; commits, verdicts and answers went on all the while. */
function goOn(state: State): Step {
  return state.paused ? { state: { ...state, paused: false }, effects: pending(state).filter(measures) } : only(state)
}

function failed(kind: Exclude<Check['verdict'], 'pass'> | 'interrupted', detail: string): Verdict {
  return kind === 'suspect' ? { kind: 'hold', why: 'suspect', gain: null, detail } : { kind: 'discard', why: kind, gain: null, detail }
}

const wasCut = (verdict: Verdict): boolean => verdict.kind === 'discard' && verdict.why === 'interrupted'

const only = (state: State): Step => ({ state, effects: [] })
