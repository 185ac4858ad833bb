/** An agent that asks a language model: prompt, patience, bookkeeping. What differs between providers is one `Ask`. */
import pRetry from 'p-retry'
import { oneLine, parseAnswer } from '../core/patch.ts'
import { costOf, type Price, type PriceTable, priceFor, tokensOf, type Usage } from '../core/prices.ts'
import { buildPrompt, type EditFormat, type Prompt } from '../core/prompt.ts'
import type { Agent, Answer, Request } from '../types.ts'
import { candidate } from './candidate.ts'
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
  /** Why nothing may be spent any more, or null. Asked before each call, so a limit is passed by one call at most. */
  spent?: (() => string | null) | undefined
  /** Keeps what was asked and answered (the run folder's llm/). Never holds the key. */
  record?: ((name: string, content: unknown) => Promise<void> | void) | undefined
}

export type Reply = { text: string; stop: 'end' | 'max-tokens' | 'refusal'; requestId: string | null }

/** One call of a model. `bill` is told what it used, also when the stream breaks off; an SDK's errors are thrown as they are. */
export type Ask = (prompt: Prompt, signal: AbortSignal, bill: (usage: Usage) => void) => Promise<Reply>

/** The provider's own words for an error, or null when it is not the provider's: then it is a bug and thrown on. */
export type Explain = (error: unknown) => Failure | null

/** Rejected requests in a row after which the provider counts as down: the loop would otherwise ask again at once, all night. */
const MAX_REJECTIONS = 3

export function llmAgent(name: string, options: LlmOptions, ask: Ask, explain: Explain): Agent {
  const patience = { ...PATIENT, ...options.patience }
  const price = priceFor(options.model, options.prices)
  let owed: Usage[] = [] // used by calls that brought no answer; billed with the next one
  let rejections = 0
  let calls = 0

  return { name, propose }

  async function propose(request: Request, signal: AbortSignal): Promise<Answer> {
    const spent = options.spent?.() ?? null
    if (spent !== null) return { kind: 'refused', why: `${name}: ${spent}` }
    const prompt = buildPrompt(request, options.editFormat ?? 'auto')
    const file = `${String(Date.now())}-${String(++calls).padStart(4, '0')}-${request.target.name}`
    await record(`${file}-request`, { agent: name, model: options.model, ...prompt })
    const outcome = await patiently(prompt, signal)
    await record(`${file}-answer`, { ...outcome, usage: owed })
    if ('failure' in outcome) return failed(outcome.failure)
    rejections = 0
    return judge(request, outcome.reply)
  }

  async function patiently(prompt: Prompt, signal: AbortSignal): Promise<{ reply: Reply } | { failure: Failure }> {
    let failure: Failure | null = null
    const attempt = (): Promise<Reply> => {
      failure = null
      const deadline = AbortSignal.any([signal, AbortSignal.timeout(patience.deadlineMs)])
      return ask(prompt, deadline, (usage) => owed.push(usage))
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
        shouldRetry: () => failure !== null && again(failure),
      })
      return { reply }
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

  function failed(failure: Failure): Answer {
    const why = redact(`${name}: ${failure.why}`, options.apiKey)
    if (failure.kind === 'refused' || (failure.status === 429 && options.onRateLimit === 'stop')) return { kind: 'refused', why }
    if (failure.kind === 'passing') return { kind: 'unavailable', why }
    rejections += 1
    if (rejections >= MAX_REJECTIONS) return { kind: 'unavailable', why: `${why} (${rejections} requests in a row)` }
    return invalid(why, 'none: the provider rejected the request')
  }

  function judge(request: Request, reply: Reply): Answer {
    if (reply.stop === 'refusal') return invalid(`the model declined to answer${at(reply)}`)
    if (reply.stop === 'max-tokens') return invalid(`the answer was cut off at ${maxOutputTokens(options)} tokens${at(reply)}`)
    if (!reply.text.trim()) return invalid(`an empty answer${at(reply)}`)
    const parsed = parseAnswer(reply.text, request.incumbent.source)
    if (!parsed.ok) return invalid(parsed.why, parsed.hypothesis)
    const { source, hypothesis, predictedGain } = parsed
    return candidate(request, { source, hypothesis, predictedGain, agent: name, ...settle() })
  }

  function invalid(why: string, hypothesis = 'none'): Answer {
    return { kind: 'invalid', why: redact(oneLine(why, 500), options.apiKey), hypothesis, agent: name, ...settle() }
  }

  function settle(): { costUsd: number; tokens: number } {
    const bill = totalOf(owed, price)
    owed = []
    return bill
  }

  async function record(file: string, content: unknown): Promise<void> {
    if (!options.record) return
    await options.record(file, JSON.parse(withoutKey(JSON.stringify(content), options.apiKey)))
  }
}

export const maxOutputTokens = (options: LlmOptions): number => options.maxOutputTokens ?? 32_000

const at = ({ requestId }: Reply): string => (requestId ? ` (request ${requestId})` : '')

function totalOf(used: Usage[], price: Price | null): { costUsd: number; tokens: number } {
  let costUsd = 0
  let tokens = 0
  for (const usage of used) {
    costUsd += price ? costOf(usage, price) : 0
    tokens += tokensOf(usage)
  }
  return { costUsd, tokens }
}
