/** What every agent that brings a whole source does last: is it usable, is it new, and if so, a proposal. */
import { oneLine, unusable } from '../core/patch.ts'
import { normalizedHash } from '../core/source-hash.ts'
import type { Answer, Proposal, Request } from '../types.ts'

export type Candidate = Pick<Proposal, 'source' | 'hypothesis' | 'predictedGain' | 'agent' | 'costUsd' | 'tokens'>

export const FREE = { costUsd: 0, tokens: 0 }

export function candidate(request: Request, { source, ...rest }: Candidate): Answer {
  const { agent, hypothesis, costUsd, tokens } = rest
  const why = unusable(source, request.incumbent.source) ?? known(request, source)
  if (why !== null) return { kind: 'invalid', why, hypothesis, agent, costUsd, tokens }
  const proposal = { target: request.target.name, basedOn: request.incumbent.commit, source, ...rest, disposable: false }
  return { kind: 'proposal', proposal }
}

/** Who had this program before, or null. */
function known(request: Request, source: string): string | null {
  const hash = normalizedHash(source)
  const twin = [...request.attempts, ...request.inFlight].find(({ sourceHash }) => sourceHash === hash)
  if (!twin && !request.tried(hash)) return null
  return `the same program as one tried before${twin ? `: ${oneLine(twin.hypothesis, 80)}` : ''}`
}
