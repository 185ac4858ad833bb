/** Where a flag's text comes from: the command line, AUTOKERNEL_*, ./autokernel.toml, the user's own config, in this order. */
import { existsSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import envPaths from 'env-paths'
import { parse, TomlError } from 'smol-toml'
import { z } from 'zod'
import type { PriceTable } from './core/prices.ts'
import { UsageError } from './errors.ts'
import { OPTIONS, type OptionName } from './options.ts'

export type Texts = Partial<Record<OptionName, string>>

const Setting = z.union([z.string(), z.number(), z.boolean(), z.array(z.string())])
const Config = z.record(z.string(), Setting)

// A repository that somebody cloned may not send their prompts elsewhere, or run a program of its choice.
const NOT_FROM_A_PROJECT: OptionName[] = ['llm-base-url', 'key-command', 'command', 'python', 'notify']

/** USD per million tokens; without rates of its own a cache costs what plain input does. */
const Price = z
  .strictObject({
    input: z.number().nonnegative(),
    output: z.number().nonnegative(),
    'cache-read': z.number().nonnegative().optional(),
    'cache-write': z.number().nonnegative().optional(),
  })
  .transform(({ input, output, ...cache }) => {
    return { input, output, cacheRead: cache['cache-read'] ?? input, cacheWrite: cache['cache-write'] ?? input }
  })

const UserConfig = z.object({ prices: z.record(z.string(), Price).optional() }).catchall(Setting)

export function gather(flags: Texts, names: readonly OptionName[], folder: string, env: NodeJS.ProcessEnv): Texts {
  const userFile = userConfig(env)
  const { prices: _, ...user } = readConfig(userFile, UserConfig)
  const projectFile = join(folder, 'autokernel.toml')
  const project = readConfig(projectFile, Config)
  const trusted = [user.trust ?? []].flat().some((path) => resolve(String(path)) === resolve(folder))
  const forbidden = NOT_FROM_A_PROJECT.find((name) => project[name] !== undefined)
  if (forbidden && !trusted) {
    throw new UsageError(
      `${projectFile} sets '${forbidden}', which a project may not; pass --${forbidden}, or list the folder under trust = [...] in ${userFile}`,
    )
  }
  const fromEnv = (name: OptionName) => env[`AUTOKERNEL_${name.replaceAll('-', '_').toUpperCase()}`]
  const chosen = names.map((name) => [name, flags[name] ?? fromEnv(name) ?? asText(project[name]) ?? asText(user[name])] as const)
  return Object.fromEntries(chosen.filter(([, value]) => value !== undefined))
}

/** The user's own prices, which a project may not set: they are what --max-cost is counted with. */
export function userPrices(env: NodeJS.ProcessEnv): PriceTable {
  return readConfig(userConfig(env), UserConfig).prices ?? {}
}

function userConfig(env: NodeJS.ProcessEnv): string {
  const folder = env.XDG_CONFIG_HOME ? join(env.XDG_CONFIG_HOME, 'autokernel') : envPaths('autokernel', { suffix: '' }).config
  return join(folder, 'config.toml')
}

function readConfig<T extends object>(file: string, schema: z.ZodType<T>): Partial<T> {
  if (!existsSync(file)) return {}
  const found = schema.safeParse(parsed(file))
  if (!found.success) throw new UsageError(`${file}: expected flag = value lines, ${z.prettifyError(found.error).replaceAll('\n', ' ')}`)
  const unknown = Object.keys(found.data).find((key) => key !== 'trust' && key !== 'prices' && !(key in OPTIONS))
  if (unknown)
    throw new UsageError(`${file}: '${unknown}' is not a setting; settings have the names of the flags, such as max-discards = 5`)
  return found.data
}

function parsed(file: string): unknown {
  try {
    return parse(readFileSync(file, 'utf8'))
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause
    throw new UsageError(`${file}:${cause.line}:${cause.column}: ${cause.message.split('\n')[0]}`, { cause })
  }
}

function asText(value: unknown): string | undefined {
  return value === undefined ? undefined : String(value)
}
