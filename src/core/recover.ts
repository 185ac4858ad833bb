/** Journal -> the state to resume from, and which candidates git must hold then. The state is nothing but the events, played again. */
import type { CommitSha } from '../schema.ts'
import type { Effect, Event, Run, State } from '../types.ts'
import { initialState, step } from './machine.ts'

export function replay(run: Run, events: Event[]): State {
  return events.reduce((state, event) => step(state, event).state, initialState(run))
}

/** What a person may ask about one experiment: everything the journal holds of it. */
export function eventsOf(events: Event[], experiment: number): Event[] {
  return events.filter((event) => 'number' in event && event.number === experiment)
}

/** What the events have asked for and said to be done. */
export type Past = {
  state: State
  candidates: (Omit<Effect & { type: 'commit' }, 'type'> & { commit: CommitSha | null })[] // null: asked for, not known to be done
}

export function past(run: Run, events: Event[]): Past {
  let state = initialState(run)
  const candidates = new Map<number, Past['candidates'][number]>()
  for (const event of events) {
    const candidate = event.type === 'committed' ? candidates.get(event.number) : undefined
    if (event.type === 'committed' && candidate) candidates.set(event.number, { ...candidate, commit: event.commit })
    const next = step(state, event)
    state = next.state
    for (const effect of next.effects) {
      if (effect.type === 'commit') {
        const { number, proposal, parent, wall } = effect
        candidates.set(number, { number, proposal, parent, wall, commit: null })
      }
    }
  }
  return { state, candidates: [...candidates.values()] }
}
