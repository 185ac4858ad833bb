/** The main loop: write down what happened, decide, start what follows. It knows nothing about kernels. */
import { finished, step } from './core/machine.ts'
import type { Inbox } from './inbox.ts'
import type { Clock, Journal, Perform } from './ports.ts'
import type { Event, Happened, State } from './types.ts'

export type LoopPorts = {
  journal: Journal
  clock: Clock
  perform: Perform
  observe: (event: Event, state: State) => void
}

/** Runs until the state is finished. News from outside (deadline, Ctrl-C) enters through the same inbox. */
export async function runLoop(initial: State, inbox: Inbox<Happened>, ports: LoopPorts): Promise<State> {
  let state = initial
  inbox.put({ type: 'started', rules: initial.run.rules })

  for await (const happened of inbox) {
    const event = ports.clock.stamp(happened)
    await ports.journal.append(event) // written down before anyone acts on it
    const next = step(state, event)
    state = next.state
    ports.observe(event, state)
    for (const effect of next.effects) inbox.expect(ports.perform(effect, state)) // runs on; its result is the next event
    if (finished(state)) break
  }
  await inbox.drained()
  return state
}
