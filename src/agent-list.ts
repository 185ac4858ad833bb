/** --agent, checked before anything slow begins: names, keys, programs, and prices where a limit must be kept. */
import { DEFAULT_ANTHROPIC_MODEL } from './agents/anthropic.ts'
import { DEFAULT_OPENAI_MODEL } from './agents/openai.ts'
import { userPrices } from './config.ts'
import { priceFor } from './core/prices.ts'
import { UsageError } from './errors.ts'
import type { Io } from './io.ts'
import type { Options } from './options.ts'
import { findProgram } from './program.ts'

const NAMES = /^(search|anthropic|openai|command|inbox|replay:.+)$/

/** The options with --agent filled in. `agents` and `maxCostUsd`: what a resumed run was started with. */
export function settleAgents(options: Options, io: Io, agents = options.agent, maxCostUsd = options['max-cost'] ?? null): Options {
  const agent = options.agent ?? agents ?? (io.env.ANTHROPIC_API_KEY ? 'anthropic' : 'search')
  if (options.agent === undefined && agents === undefined) {
    io.say(
      agent === 'anthropic'
        ? 'agent: anthropic, because ANTHROPIC_API_KEY is set (--agent search needs no key)'
        : 'agent: search over the kernels’ marked constants, because no ANTHROPIC_API_KEY is set',
    )
  }
  for (const name of agentNames(agent)) check(name, options, io, maxCostUsd)
  return { ...options, agent }
}

export const agentNames = (list: string): string[] => list.split(',').map((name) => name.trim())

export const modelOf = (name: 'anthropic' | 'openai', options: Options): string =>
  options['llm-model'] ?? (name === 'anthropic' ? DEFAULT_ANTHROPIC_MODEL : DEFAULT_OPENAI_MODEL)

/** A server of one's own seldom wants a key; the SDK does. */
export function keyFor(name: 'anthropic' | 'openai', options: Options, io: Io): string {
  const variable = name === 'anthropic' ? 'ANTHROPIC_API_KEY' : 'OPENAI_API_KEY'
  const value = io.env[variable]
  if (value) return value
  if (name === 'openai' && openaiUrl(options, io)) return 'none'
  throw new UsageError(`--agent ${name}: expected ${variable} in the environment, found none; set it, or use --agent search`)
}

export const openaiUrl = (options: Options, io: Io): string | undefined => options['llm-base-url'] ?? (io.env.OPENAI_BASE_URL || undefined)

function check(name: string, options: Options, io: Io, maxCostUsd: number | null): void {
  if (!NAMES.test(name)) throw new UsageError(`--agent: expected search, anthropic, openai, command, inbox or replay:RUN, got '${name}'`)
  if (name === 'command') {
    if (options.command === undefined)
      throw new UsageError('--agent command: expected --command with the program to run, such as --command "claude -p"')
    findProgram(options.command, '--command', io.env.PATH)
  }
  if (name !== 'anthropic' && name !== 'openai') return
  keyFor(name, options, io)
  const model = modelOf(name, options)
  if (maxCostUsd !== null && priceFor(model, userPrices(io.env)) === null) {
    throw new UsageError(
      `--max-cost: the price of '${model}' is not known, so a limit could not be kept; use --max-tokens, or give its price in the user config: [prices."${model}"] with input and output`,
    )
  }
}
