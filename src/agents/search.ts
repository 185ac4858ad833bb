/** Explores a kernel's marked constants without a model: neighbours of the incumbent first, a whole sweep of them an experiment. */
import { type Neighbour, neighbours, worthTuning } from '../core/neighbourhood.ts'
import { applyTunables } from '../core/tunables.ts'
import type { Agent, Request } from '../ports.ts'
import type { Answer } from '../types.ts'
import { FREE } from './candidate.ts'

/** A pure function of the request: the same one gets the same answer, and no source comes twice. */
export const searchAgent: Agent = {
  name: 'search',
  async propose(request) {
    return answer(request)
  },
}

function answer(request: Request): Answer {
  const { target, incumbent, sweep } = request
  const settings: Neighbour[] = []
  for (const setting of candidates(request)) {
    settings.push(setting)
    if (settings.length >= Math.max(1, sweep)) break
  }
  const [first, ...others] = settings
  if (!first) {
    const names = worthTuning(incumbent.source).map(({ name }) => name)
    if (names.length === 0) return { kind: 'exhausted', why: `nothing in ${target.name} is marked '# tune:' with more than one value` }
    return { kind: 'exhausted', why: `every combination of ${names.join(', ')} has been tried` }
  }
  const source = applyTunables(incumbent.source, first.values)
  const idea = { source, hypothesis: first.hypothesis, predictedGain: null, agent: 'search', disposable: true, thread: null, written: null }
  const sweepOf = others.map((setting) => ({ ...setting, quick: null }))
  return { kind: 'proposal', proposal: { target: target.name, basedOn: incumbent.commit, ...idea, sweep: sweepOf, ...FREE } }
}

/** Everything still untried, best guess first. */
export function candidates({ incumbent, target, seed, attempts, inFlight, tried }: Request): Generator<Neighbour> {
  const known = new Set([...inFlight, ...attempts].map(({ sourceHash }) => sourceHash))
  return neighbours(incumbent.source, {
    seed: `${seed} ${target.name}`,
    attempts,
    known: (hash) => known.has(hash) || tried(hash),
  })
}
