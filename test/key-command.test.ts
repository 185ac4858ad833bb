/** A key from a program of the user's: asked once, in time, and told to nobody. */
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it, vi } from 'vitest'
import { askKeys, keyFor, settleAgents } from '../src/agent-list.ts'
import { gather } from '../src/config.ts'
import { AuthenticationError, EnvironmentError, UsageError } from '../src/errors.ts'
import { type Io, makeIo } from '../src/io.ts'
import type { Options } from '../src/options.ts'
import { KEY } from './support/llm-agents.ts'
import { scratchFolder } from './support/scratch.ts'

const ioWith = (env: NodeJS.ProcessEnv, cwd = '/'): Io =>
  makeIo({ json: false, quiet: true, verbose: false, color: false, detached: false, cwd }, { PATH: process.env.PATH, ...env })

/** A program that does what the lines of shell say. */
async function program(...lines: string[]): Promise<{ command: string; folder: string }> {
  const folder = await scratchFolder()
  const command = join(folder, 'keys')
  writeFileSync(command, `#!/bin/sh\n${lines.join('\n')}\n`)
  chmodSync(command, 0o755)
  return { command, folder }
}

async function asked(command: string, flags: Options = {}, patienceMs?: number) {
  const io = ioWith({})
  const options = settleAgents({ agent: 'anthropic', 'key-command': command, ...flags }, io)
  return askKeys(options, io, patienceMs)
}

it.each([
  ['with a line after it', `echo ${KEY}; echo login: somebody`],
  ['without an end of line', `printf ${KEY}`],
  ['with blanks around it', `printf '  ${KEY} \\r\\n'`],
  ['beside a warning', `echo 'a warning' >&2; echo ${KEY}`],
])('is the first line of what the program prints, %s', async (_, line) => {
  expect(await asked((await program(line)).command)).toEqual({ anthropic: KEY })
})

it.each([
  ['that fails and prints the key on both outputs', `echo ${KEY}; echo "no: ${KEY}" >&2; exit 3`, 'exit code 3'],
  ['that is killed', `echo ${KEY}; kill -TERM $$`, 'its end by SIGTERM'],
  ['that prints nothing', 'true', 'an empty line'],
  ['that prints the key too late', `echo; echo ${KEY}`, 'an empty line'],
  ['that asks for something', `echo 'Password for ${KEY}:'`, 'a line with spaces or characters that no key has'],
  ['that never stops to print', `yes ${KEY}`, 'more than 64 KiB'],
  ['that never ends', `echo ${KEY}; sleep 100`, 'none after 0.5 s, and ended it'],
])('refuses a program %s in one line that quotes none of it', async (_, line, found) => {
  const error: unknown = await asked((await program(line)).command, {}, 500).catch((each) => each)
  expect(error).toBeInstanceOf(AuthenticationError)
  const { message, stack = '' } = error as Error
  expect(message).toBe(
    `--key-command: expected a key for anthropic as its first line, found ${found}; run it by hand to see why, or leave it out and set ANTHROPIC_API_KEY`,
  )
  expect(stack).not.toContain(KEY)
})

it('ends what the program started when it takes too long', async () => {
  const { command, folder } = await program('sleep 1234 & echo $! > "$(dirname "$0")/child"; wait')
  await expect(asked(command, {}, 500)).rejects.toThrow(AuthenticationError)
  const child = readFileSync(join(folder, 'child'), 'utf8').trim()
  await vi.waitUntil(() => !existsSync(`/proc/${child}`) || /\) Z /.test(readFileSync(`/proc/${child}/stat`, 'utf8')))
})

it('does not quote what is no program: it may be the key itself', () => {
  const settle = (command: string) => () => settleAgents({ agent: 'anthropic', 'key-command': command }, ioWith({}))
  for (const [command, error] of [
    [KEY, EnvironmentError],
    [`"${KEY}`, UsageError],
    ['', UsageError],
  ] as const) {
    expect(settle(command)).toThrow(error)
    expect(settle(command)).toThrow(/^--key-command: expected a program .*such as "pass show anthropic"(?!.*sk-test)/)
  }
})

it('is asked for each provider by its name, and for nobody else', async () => {
  const { command, folder } = await program('echo "$1" >> "$(dirname "$0")/calls"; echo "key-of-$1"')
  expect(await asked(`${command} {}`, { agent: 'search,openai,anthropic' })).toEqual({
    openai: 'key-of-openai',
    anthropic: 'key-of-anthropic',
  })
  expect(await asked(`${command} {}`, { agent: 'search,inbox' })).toEqual({})
  expect(readFileSync(join(folder, 'calls'), 'utf8')).toBe('openai\nanthropic\n')
  // One provider's key must not be sent to the other.
  await expect(asked(command, { agent: 'anthropic,openai' })).rejects.toThrow(/^--key-command: expected \{\}/)
})

it('runs no shell', async () => {
  const { command } = await program('echo "$1"')
  expect(await asked(`${command} '$(id)'`)).toEqual({ anthropic: '$(id)' })
})

it('goes before the environment, and chooses the agent when nobody has', async () => {
  const { command } = await program(`echo ${KEY}`)
  const io = ioWith({ ANTHROPIC_API_KEY: 'sk-from-the-environment', OPENAI_API_KEY: 'sk-other' })
  const options = settleAgents({ 'key-command': command }, io)
  expect(options.agent).toBe('anthropic')
  const keys = await askKeys(options, io)
  expect(keyFor('anthropic', options, io, keys)).toBe(KEY)
  expect(keyFor('openai', options, io, keys)).toBe('sk-other')
  expect(settleAgents({ 'key-command': command }, ioWith({}), 'search').agent).toBe('search') // as the run was started
})

it('may be set by the user’s config and the environment, and not by a project’s', async () => {
  const cwd = await scratchFolder()
  const env = { XDG_CONFIG_HOME: cwd, AUTOKERNEL_KEY_COMMAND: 'pass show {}' }
  expect(gather({}, ['key-command'], cwd, env)).toEqual({ 'key-command': 'pass show {}' })
  writeFileSync(join(cwd, 'autokernel.toml'), 'key-command = "curl http://example.org"\n')
  expect(() => gather({}, ['key-command'], cwd, env)).toThrow(/sets 'key-command', which a project may not/)
})
