/** Journal -> the state to resume from: the state is nothing but the events, played again. */
import type { Event, Run, State } from '../types.ts'
import { initialState, step } from './machine.ts'

export function replay(run: Run, events: Event[]): State {
  return events.reduce((state, event) => step(state, event).state, initialState(run))
}

/** What a person may ask about one experiment: everything the journal holds of it. */
export function eventsOf(events: Event[], experiment: number): Event[] {
  return events.filter((event) => 'number' in event && event.number === experiment)
}
