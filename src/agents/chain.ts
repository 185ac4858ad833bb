/** Several agents in order of preference: the first that has an idea is heard, and one that is down or out is passed over. */
import type { Agent, Request } from '../ports.ts'
import type { Answer, Bill } from '../types.ts'
import { FREE } from './candidate.ts'

/** An agent that was down is not asked again for a while: each asking waits through its own retries while the device idles. */
const COOL_MS = 59_500 // less than the loop's own minute

type None = Extract<Answer, { kind: 'exhausted' | 'unavailable' | 'refused' }>

export function chainAgent(agents: [Agent, ...Agent[]], now: () => number = Date.now): Agent {
  const refusals = new Map<Agent, None>() // credentials and money do not mend by asking
  const downUntil = new Map<Agent, { time: number; answer: None }>()
  return { name: agents.map(({ name }) => name).join(','), propose }

  async function propose(request: Request, signal: AbortSignal): Promise<Answer> {
    const without: None[] = []
    let owed = FREE // what those who had no idea used all the same
    for (const agent of whoMay(request)) {
      const answer = passedOver(agent) ?? (await agent.propose(request, signal))
      if (answer.kind === 'proposal') return { kind: 'proposal', proposal: { ...answer.proposal, ...sum(answer.proposal, owed) } }
      if (answer.kind === 'invalid') return { ...answer, ...sum(answer, owed) }
      if (answer.kind === 'refused') refusals.set(agent, answer)
      if (answer.kind === 'unavailable' && !passedOver(agent)) {
        downUntil.set(agent, { time: now() + COOL_MS, answer: { ...answer, ...FREE } })
        owed = sum(owed, answer)
      }
      without.push(answer)
    }
    const verdict = verdictOn(without, owed)
    // An idea that nobody can repair any more is given up; whether the others go on is for the next new idea to find out.
    return request.repair && verdict.kind === 'refused' && agents.length > 1 ? { kind: 'exhausted', why: verdict.why } : verdict
  }

  /** Only whoever wrote it knows the conversation that a repair goes on with. */
  function whoMay({ repair }: Request): Agent[] {
    return repair ? agents.filter(({ name }) => name === repair.proposal.agent) : agents
  }

  function passedOver(agent: Agent): None | null {
    const down = downUntil.get(agent)
    return refusals.get(agent) ?? (down && now() < down.time ? down.answer : null)
  }
}

/** Waiting for a provider may still bring an idea; an exhausted agent has others for the next kernel; only refusals end the run. */
function verdictOn(answers: None[], owed: Bill): None {
  for (const kind of ['unavailable', 'exhausted', 'refused'] as const) {
    const found = answers.filter((answer) => answer.kind === kind)
    if (found.length === 0) continue
    const why = found.map((answer) => answer.why).join('; ')
    return kind === 'unavailable' ? { kind, why, ...owed } : { kind, why }
  }
  return { kind: 'exhausted', why: 'nobody is left who knows that idea' }
}

const sum = (a: Bill, b: Bill): Bill => ({ costUsd: a.costUsd + b.costUsd, tokens: a.tokens + b.tokens, turns: a.turns + b.turns })
