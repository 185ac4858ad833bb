/** An agent that asks a language model: prompt, patience, bookkeeping. What differs between providers is one `Ask`. */
import pRetry from 'p-retry'
import { sameIdea } from '../core/history.ts'
import { NO_HYPOTHESIS, oneLine, parseAnswer } from '../core/patch.ts'
import { costOf, type PriceTable, priceFor, tokensOf, type Usage } from '../core/prices.ts'
import type { EditFormat } from '../core/prompt.ts'
import type { Agent, Request } from '../ports.ts'
import type { Answer, Attempt, Bill } from '../types.ts'
import { candidate } from './candidate.ts'
import { answerBefore, type Conversation, conversationFor, type Notes, nameOf, type Reply } from './conversation.ts'
import { type Failure, PATIENT, type Patience, redact, withoutKey } from './failure.ts'

export type LlmOptions = {
  model: string
  apiKey: string
  baseURL?: string | undefined
  effort?: 'low' | 'medium' | 'high' | 'xhigh' | 'max' | undefined
  editFormat?: EditFormat | undefined
  maxOutputTokens?: number | undefined // thinking included
  prices?: PriceTable | undefined // the user's own
  onRateLimit?: 'wait' | 'stop' | undefined
  patience?: Partial<Patience> | undefined
  /** Why nothing may be spent any more, or null. Asked before each call with what the ones before it used, so a limit is passed by one call at most. */
  spent?: ((used: Bill) => string | null) | undefined
  /** What was asked and answered (the run folder's llm/). Never holds the key. */
  notes?: Notes | undefined
}

/** One call of a model. `bill` is told what it used, also when the stream breaks off; an SDK's errors are thrown as they are. */
export type Ask = (conversation: Conversation, signal: AbortSignal, bill: (usage: Usage) => void) => Promise<Reply>

/** The provider's own words for an error, or null when it is not the provider's: then it is a bug and thrown on. */
export type Explain = (error: unknown) => Failure | null

/** Rejected requests in a row after which the provider counts as down: the loop would otherwise ask again at once, all night. */
const MAX_REJECTIONS = 3

export function llmAgent(name: string, options: LlmOptions, ask: Ask, explain: Explain): Agent {
  const patience = { ...PATIENT, ...options.patience }
  const price = priceFor(options.model, options.prices)
  let rejections = 0

  return { name, propose }

  async function propose(request: Request, signal: AbortSignal): Promise<Answer> {
    const file = nameOf(request.id, request.target.name)
    const before = await answerBefore(file, options.notes)
    if (before) return judge(request, before.reply, before.usage)
    const spent = options.spent?.(billOf([])) ?? null
    if (spent !== null) return { kind: 'refused', why: `${name}: ${spent}` }
    const conversation = await conversationFor(request, options.editFormat ?? 'auto', options.notes)
    await note(`${file}-request`, { agent: name, model: options.model, ...conversation })
    const usage: Usage[] = [] // also of calls that broke off
    const outcome = await patiently(conversation, usage, signal)
    await note(`${file}-answer`, { ...outcome, usage })
    if ('failure' in outcome) return failed(outcome.failure, usage)
    rejections = 0
    return judge(request, outcome.reply, usage)
  }

  async function patiently(
    conversation: Conversation,
    usage: Usage[],
    signal: AbortSignal,
  ): Promise<{ reply: Reply } | { failure: Failure }> {
    let failure: Failure | null = null
    const attempt = (): Promise<Reply> => {
      failure = null
      const deadline = AbortSignal.any([signal, AbortSignal.timeout(patience.deadlineMs)])
      return ask(conversation, deadline, (used) => usage.push(used))
    }
    try {
      const reply = await pRetry(attempt, {
        retries: patience.retries,
        minTimeout: 0, // the waiting is ours: it has to honour retry-after
        signal,
        onFailedAttempt: async ({ error, attemptNumber, retriesLeft }) => {
          signal.throwIfAborted()
          failure = explain(error)
          if (failure && retriesLeft > 0 && again(failure)) await patience.sleep(delay(failure, attemptNumber), signal)
        },
        shouldRetry: () => failure !== null && again(failure) && (options.spent?.(billOf(usage)) ?? null) === null,
      })
      // A provider or a gateway may quote the key even in an answer; from here on it goes into commits and the journal.
      return { reply: { ...reply, text: withoutKey(reply.text, options.apiKey) } }
    } catch (error) {
      signal.throwIfAborted()
      if (failure === null) throw error
      return { failure }
    }
  }

  function again(failure: Failure): boolean {
    return failure.kind === 'passing' && !(failure.status === 429 && options.onRateLimit === 'stop')
  }

  function delay({ retryAfterMs }: Failure, attempt: number): number {
    const growing = Math.min(patience.maxMs, patience.minMs * 2 ** (attempt - 1)) * (0.75 + Math.random() / 2)
    return retryAfterMs === null ? growing : Math.min(retryAfterMs, patience.retryAfterCapMs)
  }

  function failed(failure: Failure, usage: Usage[]): Answer {
    const why = redact(`${name}: ${failure.why}`, options.apiKey)
    if (failure.kind === 'refused' || (failure.status === 429 && options.onRateLimit === 'stop')) return { kind: 'refused', why }
    if (failure.kind === 'passing') return { kind: 'unavailable', why, ...billOf(usage), turns: 0 }
    rejections += 1
    if (rejections >= MAX_REJECTIONS) return { kind: 'unavailable', why: `${why} (${rejections} requests in a row)`, ...billOf(usage) }
    return invalid(why, 'none: the provider rejected the request', usage)
  }

  function judge(request: Request, reply: Reply, usage: Usage[]): Answer {
    if (reply.stop === 'refusal') return invalid(`the model declined to answer${at(reply)}`, 'none', usage)
    if (reply.stop === 'max-tokens')
      return invalid(`the answer was cut off at ${maxOutputTokens(options)} tokens${at(reply)}`, 'none', usage)
    if (!reply.text.trim()) return invalid(`an empty answer${at(reply)}`, 'none', usage)
    const parsed = parseAnswer(reply.text, request.repair?.proposal.source ?? request.incumbent.source)
    if (!parsed.ok) return invalid(parsed.why, parsed.hypothesis, usage)
    const { source, hypothesis, predictedGain } = parsed
    const earlier = request.repair ? undefined : sameBefore(hypothesis, request.attempts)
    if (earlier) return invalid(`the same idea as experiment ${earlier.experiment}, which was ${earlier.outcome}`, hypothesis, usage)
    return candidate(request, { source, hypothesis, predictedGain, agent: name, repairable: true, ...billOf(usage) })
  }

  function invalid(why: string, hypothesis: string, usage: Usage[]): Answer {
    return { kind: 'invalid', why: redact(oneLine(why, 500), options.apiKey), hypothesis, agent: name, ...billOf(usage) }
  }

  function billOf(usage: Usage[]): Bill {
    const costUsd = usage.reduce((sum, used) => sum + (price ? costOf(used, price) : 0), 0)
    return { costUsd, tokens: usage.reduce((sum, used) => sum + tokensOf(used), 0), turns: 1 }
  }

  async function note(file: string, content: unknown): Promise<void> {
    await options.notes?.write(file, JSON.parse(withoutKey(JSON.stringify(content), options.apiKey)))
  }
}

/** An idea that was measured is known; one that only failed to run may be had again. */
function sameBefore(hypothesis: string, attempts: Attempt[]): Attempt | undefined {
  const idea = sameIdea(hypothesis)
  if (idea === sameIdea(NO_HYPOTHESIS)) return undefined
  return attempts.find((attempt) => attempt.gain !== null && sameIdea(attempt.hypothesis) === idea)
}

export const maxOutputTokens = (options: LlmOptions): number => options.maxOutputTokens ?? 32_000

const at = ({ requestId }: Reply): string => (requestId ? ` (request ${requestId})` : '')
