/** Several agents in order of preference: the first that has an idea is heard, and one that is down or out is passed over. */
import type { Agent, Answer, Request } from '../types.ts'

/** An agent that was down is not asked again for a while: each asking waits through its own retries while the device idles. */
const COOL_MS = 60_000

export function chainAgent(agents: [Agent, ...Agent[]], now: () => number = Date.now): Agent {
  const refusals = new Map<Agent, Answer>() // credentials and money do not mend by asking
  const downUntil = new Map<Agent, { time: number; answer: Answer }>()
  return { name: agents.map(({ name }) => name).join(','), propose }

  async function propose(request: Request, signal: AbortSignal): Promise<Answer> {
    const without: Answer[] = []
    for (const agent of agents) {
      const answer = passedOver(agent) ?? (await agent.propose(request, signal))
      if (answer.kind === 'proposal' || answer.kind === 'invalid') return answer
      if (answer.kind === 'refused') refusals.set(agent, answer)
      if (answer.kind === 'unavailable' && !passedOver(agent)) downUntil.set(agent, { time: now() + COOL_MS, answer })
      without.push(answer)
    }
    return verdictOn(without)
  }

  function passedOver(agent: Agent): Answer | null {
    const down = downUntil.get(agent)
    return refusals.get(agent) ?? (down && now() < down.time ? down.answer : null)
  }
}

/** Waiting for a provider may still bring an idea; an exhausted agent has others for the next kernel; only refusals end the run. */
function verdictOn(answers: Answer[]): Answer {
  for (const kind of ['unavailable', 'exhausted', 'refused'] as const) {
    const [first, ...more] = answers.filter((answer) => answer.kind === kind)
    if (first?.kind === kind) return { kind, why: [first, ...more].map((answer) => ('why' in answer ? answer.why : '')).join('; ') }
  }
  throw new RangeError('a chain of agents needs at least one')
}
