/** --agent, checked before anything slow begins: names, keys, programs, and prices where a limit must be kept. */
import { userPrices } from './config.ts'
import { priceFor } from './core/prices.ts'
import { keyFrom } from './effects/key-command.ts'
import { AuthenticationError, EnvironmentError, UsageError } from './errors.ts'
import type { Io } from './io.ts'
import type { Options } from './options.ts'
import { findProgram } from './program.ts'

export type Provider = 'anthropic' | 'openai'
/** What --key-command printed: handed on to the agents, and written nowhere. */
export type Keys = Partial<Record<Provider, string>>

const DEFAULT_ANTHROPIC_MODEL = 'claude-opus-5-5'
const DEFAULT_OPENAI_MODEL = 'gpt-6.1-sol'

export const KEY_VARIABLE: Record<Provider, string> = { anthropic: 'ANTHROPIC_API_KEY', openai: 'OPENAI_API_KEY' }
const NAMES = /^(search|anthropic|openai|command|inbox|replay:.+)$/

/** The options with --agent filled in. `agents` and `maxCostUsd`: what a resumed run was started with. */
export function settleAgents(options: Options, io: Io, agents = options.agent, maxCostUsd = options['max-cost'] ?? null): Options {
  const key = options['key-command'] !== undefined ? '--key-command' : io.env.ANTHROPIC_API_KEY ? 'ANTHROPIC_API_KEY' : null
  const agent = options.agent ?? agents ?? (key === null ? 'search' : 'anthropic')
  if (options.agent === undefined && agents === undefined) {
    io.say(
      key === null
        ? 'agent: search over the kernels’ marked constants, because no ANTHROPIC_API_KEY is set'
        : `agent: anthropic, because ${key} is set (--agent search needs no key)`,
    )
  }
  for (const name of agentNames(agent)) check(name, options, io, maxCostUsd)
  if (providersIn(agent).length > 1 && options['key-command']?.includes('{}') === false)
    throw new UsageError('--key-command: expected {} where the provider’s name belongs, such as "pass show {}": --agent names two')
  return { ...options, agent }
}

export const agentNames = (list: string): string[] => list.split(',').map((name) => name.trim())

const providersIn = (list: string): Provider[] => [...new Set(agentNames(list))].filter((name) => name === 'anthropic' || name === 'openai')

export const modelOf = (name: Provider, options: Options): string =>
  options['llm-model'] ?? (name === 'anthropic' ? DEFAULT_ANTHROPIC_MODEL : DEFAULT_OPENAI_MODEL)

/** Runs --key-command, once for each provider among the agents; `options` as settleAgents left them. */
export async function askKeys(options: Options, io: Io, patienceMs?: number): Promise<Keys> {
  const command = options['key-command']
  const keys: Keys = {}
  if (command === undefined) return keys
  for (const name of providersIn(options.agent ?? '')) {
    const answer = await keyFrom(keyProgram(command, name, io), patienceMs) // one after the other: each may ask for a passphrase
    if (answer.kind === 'none') {
      const instead = `run it by hand to see why, or leave it out and set ${KEY_VARIABLE[name]}`
      throw new AuthenticationError(`--key-command: expected a key for ${name} as its first line, found ${answer.found}; ${instead}`)
    }
    keys[name] = answer.key
  }
  return keys
}

/** `{}` in an argument is the provider's name. */
function keyProgram(command: string, name: Provider, io: Io): [string, ...string[]] {
  try {
    const [program, ...args] = findProgram(command, '--key-command', io.env.PATH)
    return [program, ...args.map((arg) => arg.replaceAll('{}', name))]
  } catch (error) {
    // Not in its words: they quote the line, which may be the key itself, given by mistake.
    const message = '--key-command: expected a program and its arguments, such as "pass show anthropic"'
    if (error instanceof EnvironmentError)
      throw new EnvironmentError(`${message}, found no such program; install it, or give its whole path`)
    throw new UsageError(`${message}, found nothing or a quote that is not closed`)
  }
}

/** A server of one's own seldom wants a key; the SDK does. */
export function keyFor(name: Provider, options: Options, io: Io, keys: Keys): string {
  const variable = KEY_VARIABLE[name]
  const value = keys[name] ?? io.env[variable]
  if (value) return value
  if (name === 'openai' && openaiUrl(options, io)) return 'none'
  const found = `--agent ${name}: expected ${variable} in the environment, found none`
  throw new UsageError(`${found}; set it, give a --key-command that prints it, or use --agent search`)
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
  const command = options['key-command']
  if (command === undefined) keyFor(name, options, io, {})
  else keyProgram(command, name, io)
  const model = modelOf(name, options)
  if (maxCostUsd !== null && priceFor(model, userPrices(io.env)) === null) {
    throw new UsageError(
      `--max-cost: the price of '${model}' is not known, so a limit could not be kept; use --max-tokens, or give its price in the user config: [prices."${model}"] with input and output`,
    )
  }
}
