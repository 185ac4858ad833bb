/** Both language-model agents, each with a server of its own, a clock that does not wait, and what they recorded. */
import { anthropicAgent } from '../../src/agents/anthropic.ts'
import type { LlmOptions } from '../../src/agents/llm.ts'
import { openaiAgent } from '../../src/agents/openai.ts'
import type { Agent } from '../../src/ports.ts'
import type { Answer } from '../../src/types.ts'
import { anthropicServer } from './anthropic-server.ts'
import type { Behaviour, LlmServer } from './llm-server.ts'
import { openaiServer } from './openai-server.ts'
import { KERNEL, never, request } from './request.ts'

export const KEY = 'sk-test-0123456789abcdef'
export const FASTER = KERNEL.replace('NUM_WARPS = 4 ', 'NUM_WARPS = 16 ')
export const GOOD = `HYPOTHESIS: more warps hide the load latency\nPREDICTED: 1.12\n\n\`\`\`python\n${FASTER}\`\`\`\n`
export const said = (text: string): Behaviour => ({ do: 'answer', text })
export const block = (code: string, language = 'python'): string => `HYPOTHESIS: it is faster\n\n\`\`\`${language}\n${code}\n\`\`\`\n`

export type Setup = { agent: Agent; server: LlmServer; slept: number[]; records: [string, unknown][]; ask: () => Promise<Answer> }
export type Make = (options?: Partial<LlmOptions>) => Promise<Setup>

function maker(start: () => Promise<LlmServer>, create: (options: LlmOptions) => Agent, base: (url: string) => string): Make {
  return async (options = {}) => {
    const server = await start()
    const slept: number[] = []
    const records: [string, unknown][] = []
    const sleep = async (ms: number): Promise<void> => {
      slept.push(ms)
    }
    const agent = create({
      model: 'house-model',
      apiKey: KEY,
      baseURL: base(server.url),
      prices: { 'house-model': { input: 10, cacheWrite: 20, cacheRead: 1, output: 50 } },
      notes: {
        write: (name, content) => void records.push([name, content]),
        read: (name) => records.find(([file]) => file === name)?.[1] ?? null,
      },
      ...options,
      patience: { retries: 3, sleep, stallMs: 5000, ...options.patience },
    })
    let id = 0 // each ask has its own, as in a run
    return { agent, server, slept, records, ask: () => agent.propose(request({ id: ++id }), never) }
  }
}

export const makeAnthropic = maker(anthropicServer, anthropicAgent, (url) => url)
export const makeOpenai = maker(openaiServer, openaiAgent, (url) => `${url}/v1`)
