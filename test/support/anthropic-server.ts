/** The Messages API as streamed events. */
import { type LlmServer, llmServer, type Protocol, pieces } from './llm-server.ts'

const event = (type: string, data: object): string => `event: ${type}\ndata: ${JSON.stringify({ type, ...data })}\n\n`
const STOPS = { end: 'end_turn', 'max-tokens': 'max_tokens', refusal: 'refusal' }

/** Every answer costs 100 fresh, 2000 written, 3000 read and 400 output tokens. */
const protocol: Protocol = {
  start: (text) => [
    event('message_start', {
      message: {
        id: 'msg_1',
        type: 'message',
        role: 'assistant',
        model: 'claude-test',
        content: [],
        stop_reason: null,
        stop_sequence: null,
        usage: { input_tokens: 100, cache_creation_input_tokens: 2000, cache_read_input_tokens: 3000, output_tokens: 1 },
      },
    }),
    event('ping', {}),
    event('content_block_start', { index: 0, content_block: { type: 'text', text: '' } }),
    ...pieces(text).map((piece) => event('content_block_delta', { index: 0, delta: { type: 'text_delta', text: piece } })),
  ],
  end: (_, stop) => [
    event('content_block_stop', { index: 0 }),
    event('message_delta', { delta: { stop_reason: STOPS[stop], stop_sequence: null }, usage: { output_tokens: 400 } }),
    event('message_stop', {}),
  ],
  error: (type, message) => ({ type: 'error', error: { type, message }, request_id: 'req_7' }),
  errorEvent: (type, message) => event('error', { error: { type, message } }),
}

export const anthropicServer = (): Promise<LlmServer> => llmServer(protocol)
