/** Plays a recorded run's proposals again, without a provider: the same ideas in the same order, paid for once. */
import { normalizedHash } from '../core/source-hash.ts'
import type { Agent } from '../ports.ts'
import type { Proposal } from '../types.ts'
import { FREE } from './candidate.ts'

export function replayAgent(recorded: Proposal[]): Agent {
  const tape = recorded.map((proposal) => ({ proposal, hash: normalizedHash(proposal.source) }))
  return {
    name: 'replay',
    /** Keeps no position: the next one is the first that this run has not seen, so a resumed replay goes on where it was. */
    async propose({ target, incumbent, attempts, inFlight, tried }) {
      const seen = new Set([...attempts, ...inFlight].map(({ sourceHash }) => sourceHash)).add(normalizedHash(incumbent.source))
      const next = tape.find(({ proposal, hash }) => proposal.target === target.name && !seen.has(hash) && !tried(hash))
      if (!next) return { kind: 'exhausted', why: `the recorded run has no other idea for ${target.name}` }
      return {
        kind: 'proposal',
        proposal: { ...next.proposal, basedOn: incumbent.commit, agent: 'replay', disposable: true, thread: null, ...FREE },
      }
    },
  }
}
