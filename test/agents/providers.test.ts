/** What each provider is asked in particular, and what is billed when things break off. */
import { expect, it } from 'vitest'
import type { Bill } from '../../src/types.ts'
import { GOOD, KEY, makeAnthropic, makeOpenai, said } from '../support/llm-agents.ts'

it('asks Claude with the stable half cached for an hour, effort, and no sampling parameters', async () => {
  const { server, ask } = await makeAnthropic({ effort: 'high' })
  server.will(said(GOOD))
  await ask()
  const [{ path, headers, body } = { path: '', headers: {}, body: {} }] = server.seen
  expect(path).toBe('/v1/messages')
  expect(headers).toMatchObject({ authorization: `Bearer ${KEY}` })
  expect(body).toMatchObject({
    model: 'house-model',
    stream: true,
    max_tokens: 32_000,
    output_config: { effort: 'high' },
    system: [{ type: 'text', cache_control: { type: 'ephemeral', ttl: '1h' } }],
  })
  for (const parameter of ['temperature', 'top_p', 'top_k', 'tool_choice']) expect(body).not.toHaveProperty(parameter)
})

it('asks a server of one’s own for whole files only, and names the limit as old servers know it', async () => {
  const { server, ask } = await makeOpenai()
  server.will(said(GOOD))
  await ask()
  const [{ path, body } = { path: '', body: {} }] = server.seen
  expect(path).toBe('/v1/chat/completions')
  expect(body).toMatchObject({ max_tokens: 32_000, stream_options: { include_usage: true } })
  expect(JSON.stringify(body)).not.toContain('unified diff')
})

it('asks for diffs when told to', async () => {
  const { server, ask } = await makeOpenai({ editFormat: 'diff' })
  server.will(said(GOOD))
  await ask()
  expect(JSON.stringify(server.seen[0]?.body)).toContain('unified diff')
})

it('bills the part of a cut stream that was used, with whatever comes of the request', async () => {
  const { server, ask } = await makeAnthropic({ patience: { retries: 1 } })
  server.will({ do: 'cut', text: 'HYPOTHESIS' }, { do: 'cut', text: 'HYPOTHESIS' }, { do: 'cut', text: 'HYPOTHESIS' }, said(GOOD))
  expect(await ask()).toMatchObject({ kind: 'unavailable', tokens: 2 * 5101, turns: 0 })
  expect(await ask()).toMatchObject({ proposal: { tokens: 5101 + 5500, turns: 1 } })
})

it('does not even retry a broken stream when what it used has reached the limit', async () => {
  const spent = ({ tokens }: Bill): string | null => (tokens >= 5000 ? '--max-tokens is reached' : null)
  const { server, ask } = await makeAnthropic({ spent })
  server.will({ do: 'cut', text: 'HYPOTHESIS' }, said(GOOD))
  expect(await ask()).toMatchObject({ kind: 'unavailable', tokens: 5101 })
  expect(server.seen).toHaveLength(1)
})

it('asks nothing more once the budget is spent, and says so', async () => {
  const { server, ask } = await makeAnthropic({ spent: () => '$5.02 of $5.00 spent' })
  expect(await ask()).toEqual({ kind: 'refused', why: 'anthropic: $5.02 of $5.00 spent' })
  expect(server.seen).toEqual([])
})

it('costs nothing at a price that nobody knows, and still counts tokens', async () => {
  const { server, ask } = await makeOpenai({ model: 'llama-on-my-desk' })
  server.will(said(GOOD))
  expect(await ask()).toMatchObject({ proposal: { costUsd: 0, tokens: 5500 } })
})
