/** Where a setting comes from, prices of one's own among them, and what is refused before anything begins. */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { settleAgents } from '../src/agent-list.ts'
import { gather, userPrices } from '../src/config.ts'
import { UsageError } from '../src/errors.ts'
import { makeIo } from '../src/io.ts'
import { parseOptions } from '../src/options.ts'
import { scratchFolder } from './support/scratch.ts'

async function withConfig(text: string): Promise<{ env: NodeJS.ProcessEnv; cwd: string }> {
  const cwd = await scratchFolder()
  await mkdir(join(cwd, 'autokernel'))
  await writeFile(join(cwd, 'autokernel', 'config.toml'), text)
  return { cwd, env: { XDG_CONFIG_HOME: cwd, OPENAI_API_KEY: 'sk-test-0123456789', PATH: process.env.PATH } }
}

const io = (env: NodeJS.ProcessEnv, cwd: string) =>
  makeIo({ json: false, quiet: true, verbose: false, color: false, detached: false, cwd }, env)

it('takes prices from the user’s config beside its settings; a cache costs what input does unless told', async () => {
  const { env, cwd } = await withConfig(
    'max-discards = 7\n[prices."my-model"]\ninput = 2\noutput = 8.5\n[prices.other]\ninput = 1\noutput = 1\ncache-read = 0.1\ncache-write = 1.25\n',
  )
  expect(userPrices(env)).toEqual({
    'my-model': { input: 2, output: 8.5, cacheRead: 2, cacheWrite: 2 },
    other: { input: 1, output: 1, cacheRead: 0.1, cacheWrite: 1.25 },
  })
  expect(gather({}, ['max-discards'], cwd, env)).toEqual({ 'max-discards': '7' })
})

it.each([
  ['a price without output', '[prices.m]\ninput = 1\n'],
  ['a price below nothing', '[prices.m]\ninput = -1\noutput = 1\n'],
  ['a price with a word nobody knows', '[prices.m]\ninput = 1\noutput = 1\ncache = 1\n'],
])('refuses %s in one line', async (_, text) => {
  const { env } = await withConfig(text)
  expect(() => userPrices(env)).toThrow(UsageError)
})

it('does not let a project set prices', async () => {
  const { env, cwd } = await withConfig('')
  await writeFile(join(cwd, 'autokernel.toml'), '[prices.m]\ninput = 0\noutput = 0\n')
  expect(() => gather({}, ['hours'], cwd, env)).toThrow(UsageError)
})

it('refuses to start with --max-cost and a model whose price nobody knows, also when the limit is from before', async () => {
  const { env, cwd } = await withConfig('[prices.known]\ninput = 1\noutput = 2\n')
  const start = (model: string, maxCost?: number) =>
    settleAgents({ agent: 'search,openai', 'llm-model': model, ...(maxCost === undefined ? {} : { 'max-cost': maxCost }) }, io(env, cwd))
  expect(() => start('house-model', 5)).toThrow(/--max-cost: the price of 'house-model' is not known/)
  expect(start('house-model').agent).toBe('search,openai')
  expect(start('known', 5).agent).toBe('search,openai')
  expect(() => settleAgents({ 'llm-model': 'house-model' }, io(env, cwd), 'openai', 5)).toThrow(/--max-cost/)
})

it('says what is missing before anything slow begins', async () => {
  const { cwd } = await withConfig('')
  const bare = io({ PATH: process.env.PATH }, cwd)
  expect(() => settleAgents({ agent: 'anthropic' }, bare)).toThrow(/expected ANTHROPIC_API_KEY/)
  expect(() => settleAgents({ agent: 'openai' }, bare)).toThrow(/expected OPENAI_API_KEY/)
  expect(settleAgents({ agent: 'openai', 'llm-base-url': 'http://localhost:1' }, bare).agent).toBe('openai')
  expect(() => settleAgents({ agent: 'command' }, bare)).toThrow(/expected --command/)
  expect(() => settleAgents({ agent: 'search,oracle' }, bare)).toThrow(/got 'oracle'/)
  expect(settleAgents({}, bare).agent).toBe('search')
  expect(settleAgents({}, bare, 'inbox').agent).toBe('inbox') // as the run was started
})

it.each(['a b', '../x', 'x/y', 'a..b', 'x.lock', 'x.', '-x', ''])(
  'refuses %j as the name of a run, which a folder and a branch bear',
  (run) => {
    expect(() => parseOptions({ run })).toThrow(UsageError)
  },
)
