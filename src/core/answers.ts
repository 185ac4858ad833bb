/** What an agent's answer leads to: an idea to judge, a row that says why not, or a pause. */
import type { Row } from '../row.ts'
import type { Effect, Event, Experiment, Proposal, Repair, State, Verdict } from '../types.ts'
import { average, put, remember, spend, targetOf } from './edit.ts'
import { find } from './known.ts'
import { experimentRow } from './record.ts'
import { beingJudged } from './slots.ts'
import { normalizedHash } from './source-hash.ts'

type Step = { state: State; effects: Effect[] }
type Answered = Event & { type: 'answered' }

const AGAIN_AFTER_MS = 60_000 // a provider that is down is asked again after this
const MAX_REPAIRS = 3

export function answered(before: State, event: Answered): Step {
  const asked = before.proposing.asked.find(({ id }) => id === event.id)
  if (!asked) return only(before)
  const { answer } = event
  const others = before.proposing.asked.filter(({ id }) => id !== event.id)
  const state = { ...before, proposing: { ...before.proposing, asked: others } }
  switch (answer.kind) {
    case 'proposal':
      return proposed(paced(state, event.at - asked.since), answer.proposal, asked.repair !== null, event)
    case 'invalid': {
      const place = { target: event.target, basedOn: event.incumbent, disposable: false, thread: null, sweep: [], written: null }
      const idea = { ...place, source: '', predictedGain: null }
      return invalid(paced(state, event.at - asked.since), { ...answer, ...idea }, answer.why, event)
    }
    case 'exhausted': {
      if (asked.repair) return only(state) // nobody is there who could repair it
      const target = targetOf(state.run, event.target)
      const undecided = beingJudged(state) === event.target || state.proposing.ready.some((idea) => idea.target === event.target)
      // While a candidate waits for its verdict, "nothing left" may only mean "not before it".
      if (target.incumbent !== event.incumbent || undecided) return only(pausedFor('verdict', state))
      return only(put(state, { ...target, left: 'exhausted' }))
    }
    case 'unavailable': {
      const { repairs } = state.proposing
      const again = asked.repair ? { ...state, proposing: { ...state.proposing, repairs: [asked.repair, ...repairs] } } : state
      const paid = spend(again, answer)
      const waiting = paid.proposing.waiting === 'provider'
      return { state: pausedFor('provider', paid), effects: waiting ? [] : [{ type: 'wait', ms: AGAIN_AFTER_MS }] }
    }
    case 'refused': {
      const stop = { reason: 'refused' as const, detail: answer.why, now: false }
      return only(state.run.stop ? state : { ...state, run: { ...state.run, stop } })
    }
  }
}

function proposed(state: State, proposal: Proposal, repair: boolean, event: Answered): Step {
  const { ready } = state.proposing
  const hash = normalizedHash(proposal.source)
  const earlier = find(state.run.sources, hash)
  const waiting = ready.find((idea) => normalizedHash(idea.source) === hash)
  // A free one costs nothing to have again, and then whoever had it knows of its twin.
  if (waiting && proposal.disposable) return only(state)
  if (earlier !== undefined || waiting) {
    const twin = waiting ? `one that waits to be judged: ${waiting.hypothesis}` : `experiment ${earlier}`
    return invalid(state, proposal, `the same source as ${twin}`, event)
  }
  const place = repair ? ready.filter((idea) => idea.thread?.repairs).length : ready.length
  return only({ ...spend(state, proposal), proposing: { ...state.proposing, ready: ready.toSpliced(place, 0, proposal) } })
}

/** An answer that cannot be judged is an experiment too: it has a number and a row, and costs what it cost. */
function invalid(state: State, proposal: Proposal, why: string, event: Event): Step {
  const number = state.run.experiments + 1
  const parent = state.run.best
  const experiment: Experiment = { number, proposal, commit: parent, parent, startedAt: event.at, cuts: 0 }
  const verdict: Verdict = { kind: 'discard', why: 'invalid', gain: null, detail: why }
  const nothing = { check: null, rounds: [], confirmed: null }
  const row = experimentRow(state.run, targetOf(state.run, proposal.target), experiment, verdict, nothing, event)
  const paid = spend(state, proposal)
  const counted = { ...paid, run: { ...paid.run, experiments: number, counted: paid.run.counted + 1 } }
  return withRow(remember(counted, experiment, verdict, null), { ...row, commit: null })
}

/** Rows stand in the order of their events, also after a crash: one that must wait for a verdict's is written when that is. */
function withRow(state: State, row: Row): Step {
  const { judging } = state
  if (judging.phase !== 'settling') return { state, effects: [{ type: 'row', row }] }
  return only({ ...state, judging: { ...judging, rows: [...judging.rows, row] } })
}

/** Sends a candidate that failed back to whoever wrote it, a few times at most. */
export function withRepair(state: State, { number, proposal }: Experiment, verdict: Verdict): State {
  if (verdict.kind !== 'discard' || !/^(wrong|crash|timeout|invalid)$/.test(verdict.why)) return state
  if (!proposal.thread || proposal.thread.repairs >= MAX_REPAIRS) return state
  const repair: Repair = { experiment: number, proposal, outcome: verdict.why, detail: verdict.detail }
  return { ...state, proposing: { ...state.proposing, repairs: [...state.proposing.repairs, repair] } }
}

function pausedFor(waiting: 'provider' | 'verdict', state: State): State {
  return { ...state, proposing: { ...state.proposing, waiting } }
}

function paced(state: State, ms: number): State {
  const { pace } = state.run
  return { ...state, run: { ...state.run, pace: { ...pace, answerMs: average(pace.answerMs, ms) } } }
}

const only = (state: State): Step => ({ state, effects: [] })
