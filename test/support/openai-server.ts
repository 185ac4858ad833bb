/** The chat completions API as streamed chunks. */
import { type LlmServer, llmServer, type Protocol, pieces } from './llm-server.ts'

const BASE = { id: 'chatcmpl-1', object: 'chat.completion.chunk', created: 1, model: 'gpt-test' }
const chunk = (data: object): string => `data: ${JSON.stringify({ ...BASE, ...data })}\n\n`
const choice = (delta: object, finish_reason: string | null = null): object => ({ choices: [{ index: 0, delta, finish_reason }] })
const STOPS = { end: 'stop', 'max-tokens': 'length', refusal: 'content_filter' }

/** Every answer costs 5100 prompt tokens, 3000 of them read from and 2000 written to the cache, and 400 output tokens. */
const protocol: Protocol = {
  start: (text) => [chunk(choice({ role: 'assistant', content: '' })), ...pieces(text).map((content) => chunk(choice({ content })))],
  end: (_, stop) => [
    chunk(choice({}, STOPS[stop])),
    chunk({
      choices: [],
      usage: {
        prompt_tokens: 5100,
        completion_tokens: 400,
        total_tokens: 5500,
        prompt_tokens_details: { cached_tokens: 3000, cache_write_tokens: 2000 },
      },
    }),
    'data: [DONE]\n\n',
  ],
  error: (type, message) => ({ error: { message, type, code: type, param: null } }),
  errorEvent: (type, message) => `data: ${JSON.stringify({ error: { message, type, code: type } })}\n\n`,
}

export const openaiServer = (): Promise<LlmServer> => llmServer(protocol)
