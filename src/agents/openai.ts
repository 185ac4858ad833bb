/** Ideas from OpenAI or any server that speaks its protocol (vLLM, Ollama, llama.cpp, a gateway), through the openai package. */
import OpenAI from 'openai'
import type { Usage } from '../core/prices.ts'
import type { Agent } from '../ports.ts'
import type { Reply } from './conversation.ts'
import { explainApi, explainTransport, type Failure, fetchThatStalls, PATIENT, passing, STDERR_LOGGER } from './failure.ts'
import { type Ask, type LlmOptions, llmAgent, maxOutputTokens } from './llm.ts'

/** A server of one's own is a small model more often than not, and those cannot write diffs: they get the whole file as their only format. */
export function openaiAgent(options: LlmOptions): Agent {
  const format = options.editFormat ?? 'auto'
  const stallMs = options.patience?.stallMs ?? PATIENT.stallMs
  const client = new OpenAI({
    apiKey: options.apiKey,
    ...(options.baseURL ? { baseURL: options.baseURL } : {}),
    maxRetries: 0,
    timeout: stallMs,
    fetch: fetchThatStalls(stallMs),
    logger: STDERR_LOGGER,
    logLevel: 'warn',
  })
  const editFormat = format === 'auto' && options.baseURL ? 'whole' : format
  return llmAgent('openai', { ...options, editFormat }, askWith(client, options), explain)
}

function askWith(client: OpenAI, options: LlmOptions): Ask {
  const limit = maxOutputTokens(options)
  return async ({ system, messages }, signal, bill) => {
    const stream = await client.chat.completions.create(
      {
        model: options.model,
        messages: [{ role: 'system', content: system }, ...messages.map(({ role, text }) => ({ role, content: text }))],
        stream: true,
        stream_options: { include_usage: true },
        // The newer name is all that OpenAI's own models take; servers of one's own know the older one best.
        ...(options.baseURL ? { max_tokens: limit } : { max_completion_tokens: limit }),
        ...(options.effort ? { reasoning_effort: options.effort } : {}),
      },
      { signal },
    )
    let text = ''
    let declined = false
    let finish: string | null = null
    let id: string | null = null
    for await (const { id: answerId, choices, usage } of stream) {
      id = answerId
      if (usage) bill(usageOf(usage))
      const [choice] = choices
      text += choice?.delta.content ?? ''
      declined ||= Boolean(choice?.delta.refusal)
      finish = choice?.finish_reason ?? finish
    }
    if (finish === null) throw new OpenAI.OpenAIError('the stream ended before the answer did')
    const stop: Reply['stop'] = declined || finish === 'content_filter' ? 'refusal' : finish === 'length' ? 'max-tokens' : 'end'
    return { text, stop, requestId: id }
  }
}

/** Here what the cache read or wrote is counted inside the prompt. */
function usageOf(usage: OpenAI.CompletionUsage): Usage {
  const cacheRead = usage.prompt_tokens_details?.cached_tokens ?? 0
  const cacheWrite = usage.prompt_tokens_details?.cache_write_tokens ?? 0
  return { input: Math.max(0, usage.prompt_tokens - cacheRead - cacheWrite), cacheWrite, cacheRead, output: usage.completion_tokens }
}

function explain(error: unknown): Failure | null {
  if (error instanceof OpenAI.APIError) {
    const { status, headers, requestID, code, type, message } = error
    return explainApi({ status, headers, requestId: requestID, type: code ?? type, message })
  }
  if (error instanceof OpenAI.OpenAIError) return passing(error.message)
  return explainTransport(error)
}
