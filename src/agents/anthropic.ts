/** Ideas from Claude, through @anthropic-ai/sdk: streamed, the stable half of the prompt cached for an hour, effort instead of sampling. */
import Anthropic from '@anthropic-ai/sdk'
import type { Agent } from '../ports.ts'
import { explainApi, explainTransport, type Failure, fetchThatStalls, PATIENT, passing, STDERR_LOGGER } from './failure.ts'
import { type Ask, type LlmOptions, llmAgent, maxOutputTokens } from './llm.ts'

/** The stable half, and a conversation from its first repair on: most have none, and writing a cache costs twice the reading. */
const CACHED = { cache_control: { type: 'ephemeral', ttl: '1h' } } as const

export function anthropicAgent(options: LlmOptions): Agent {
  const stallMs = options.patience?.stallMs ?? PATIENT.stallMs
  const client = new Anthropic({
    apiKey: options.apiKey,
    authToken: null,
    ...(options.baseURL ? { baseURL: options.baseURL } : {}),
    maxRetries: 0, // ours cover what the SDK's do not: a cap on retry-after, and a stream cut in the middle
    timeout: stallMs,
    fetch: fetchThatStalls(stallMs),
    logger: STDERR_LOGGER,
    logLevel: 'warn',
  })
  return llmAgent('anthropic', options, askWith(client, options), explain)
}

function askWith(client: Anthropic, options: LlmOptions): Ask {
  return async ({ system, messages }, signal, bill) => {
    const stream = client.messages.stream(
      {
        model: options.model,
        max_tokens: maxOutputTokens(options),
        ...(options.effort ? { output_config: { effort: options.effort } } : {}),
        system: [{ type: 'text', text: system, ...CACHED }],
        messages: messages.map(({ role, text }, i) => ({
          role,
          content: [{ type: 'text', text, ...(i > 0 && i === messages.length - 1 && CACHED) }],
        })),
      },
      { signal },
    )
    let seen: Anthropic.Message | null = null // as far as it came, for a stream that breaks off is billed too
    stream.on('streamEvent', (_, snapshot) => {
      seen = snapshot
    })
    try {
      const message = await stream.finalMessage()
      seen = message
      const text = message.content.flatMap((block) => (block.type === 'text' ? [block.text] : [])).join('\n')
      return { text, stop: stopOf(message.stop_reason), requestId: stream.request_id ?? null }
    } finally {
      if (seen) bill(usageOf(seen))
    }
  }
}

function stopOf(reason: Anthropic.StopReason | null): 'end' | 'max-tokens' | 'refusal' {
  if (reason === 'refusal') return 'refusal'
  return reason === 'max_tokens' || reason === 'model_context_window_exceeded' ? 'max-tokens' : 'end'
}

function usageOf({ usage }: Pick<Anthropic.Message, 'usage'>): { input: number; cacheWrite: number; cacheRead: number; output: number } {
  return {
    input: usage.input_tokens,
    cacheWrite: usage.cache_creation_input_tokens ?? 0,
    cacheRead: usage.cache_read_input_tokens ?? 0,
    output: usage.output_tokens,
  }
}

function explain(error: unknown): Failure | null {
  if (error instanceof Anthropic.APIError) {
    const { status, headers, requestID, type, apiMessage, message } = error
    return explainApi({ status, headers, requestId: requestID, type, message: apiMessage ?? message })
  }
  if (error instanceof Anthropic.AnthropicError) return passing(error.message) // how the SDK reports a stream that was cut
  return explainTransport(error)
}
