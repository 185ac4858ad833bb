/** What every agent that brings a whole source does last: is it usable, is it new, and if so, a proposal. */
import { oneLine, unusable } from '../core/patch.ts'
import { normalizedHash } from '../core/source-hash.ts'
import { settingsAround } from '../core/sweep.ts'
import type { Request } from '../ports.ts'
import type { Answer, Bill, Proposal } from '../types.ts'

/** `repairable`: whoever had it can be told what the judge said about it, and try again. */
export type Candidate = Pick<Proposal, 'source' | 'hypothesis' | 'predictedGain' | 'agent'> & Bill & { repairable: boolean }

export const FREE: Bill = { costUsd: 0, tokens: 0, turns: 0 }

export function candidate(request: Request, { source, repairable, hypothesis: said, ...rest }: Candidate): Answer {
  const { agent, costUsd, tokens, turns } = rest
  const { repair } = request
  const hypothesis = repair ? oneLine(`repair of #${repair.experiment}: ${said}`, 300) : said
  const why = unusable(source, request.incumbent.source) ?? known(request, source)
  if (why !== null) return { kind: 'invalid', why, hypothesis, agent, costUsd, tokens, turns }
  const thread = repairable ? { ask: request.id, repairs: repair?.proposal.thread ? repair.proposal.thread.repairs + 1 : 0 } : null
  const place = { target: request.target.name, basedOn: request.incumbent.commit, disposable: false, written: null }
  return {
    kind: 'proposal',
    proposal: { ...place, source, hypothesis, thread, sweep: settingsAround(source, hypothesis, request), ...rest },
  }
}

/** Who had this program before, or null. */
function known(request: Request, source: string): string | null {
  const hash = normalizedHash(source)
  const twin = [...request.attempts, ...request.inFlight].find(({ sourceHash }) => sourceHash === hash)
  if (!twin && !request.tried(hash)) return null
  return `the same program as one tried before${twin ? `: ${oneLine(twin.hypothesis, 80)}` : ''}`
}
