/** Both language-model agents against a local server that speaks the real protocol and misbehaves: nothing ends the night but credentials. */
import { describe, expect, it } from 'vitest'
import { normalizedHash } from '../../src/core/source-hash.ts'
import { block, FASTER, GOOD, KEY, type Make, makeAnthropic, makeOpenai, said } from '../support/llm-agents.ts'
import type { Behaviour } from '../support/llm-server.ts'
import { attempt, KERNEL, never, request } from '../support/request.ts'

const AGENTS: [string, Make][] = [
  ['anthropic', makeAnthropic],
  ['openai', makeOpenai],
]

describe.each(AGENTS)('%s', (name, make) => {
  it('turns a streamed answer into a proposal, billed from all four kinds of token', async () => {
    const { server, ask } = await make()
    server.will(said(GOOD))
    expect(await ask()).toEqual({
      kind: 'proposal',
      proposal: {
        target: 'rmsnorm',
        basedOn: 'abc1234',
        source: FASTER,
        hypothesis: 'more warps hide the load latency',
        predictedGain: 1.12,
        agent: name,
        disposable: false,
        thread: { ask: 1, repairs: 0 },
        sweep: [],
        written: null,
        turns: 1,
        costUsd: (100 * 10 + 2000 * 20 + 3000 * 1 + 400 * 50) / 1e6,
        tokens: 5500,
      },
    })
  })

  it.each([401, 402, 403, 404])('stops at %i at once, in one line that does not show the key', async (status) => {
    const { server, slept, ask } = await make()
    server.will({ do: 'status', status, type: 'some_error', message: `Incorrect API key:\n ${KEY} or sk-test-*****cdef` })
    const answer = await ask()
    expect(answer).toMatchObject({
      kind: 'refused',
      why: expect.stringMatching(new RegExp(`^${name}: ${status} .*\\[key\\] or \\[key\\].*req_7`)),
    })
    expect(JSON.stringify(answer)).not.toContain(KEY)
    expect(server.seen).toHaveLength(1)
    expect(slept).toEqual([])
  })

  it('does not retry a 400 and says the reason and the request id', async () => {
    const { server, ask } = await make()
    server.will({ do: 'status', status: 400, type: 'invalid_request_error', message: 'max_tokens: too large' })
    expect(await ask()).toMatchObject({
      kind: 'invalid',
      why: `${name}: 400 invalid_request_error: max_tokens: too large (request req_7)`,
      tokens: 0,
    })
    expect(server.seen).toHaveLength(1)
  })

  it('counts a provider that rejects three requests in a row as down, so that the loop waits', async () => {
    const { server, ask } = await make()
    server.will({ do: 'status', status: 400 })
    expect([(await ask()).kind, (await ask()).kind, (await ask()).kind]).toEqual(['invalid', 'invalid', 'unavailable'])
  })

  it.each([408, 429, 500, 503, 529])('backs off on %i, longer each time, and goes on', async (status) => {
    const { server, slept, ask } = await make()
    server.will({ do: 'status', status }, { do: 'status', status }, said(GOOD))
    expect((await ask()).kind).toBe('proposal')
    expect(server.seen).toHaveLength(3)
    expect(slept).toHaveLength(2)
    expect(slept[1]).toBeGreaterThan(slept[0] ?? 0)
  })

  it.each([
    ['honours retry-after in seconds', { 'retry-after': '7' }, 7_000],
    ['honours retry-after-ms', { 'retry-after-ms': '250' }, 250],
    ['caps a retry-after of an hour', { 'retry-after': '3600' }, 60_000],
    ['caps a retry-after that is a date', { 'retry-after': 'Fri, 31 Dec 2100 23:59:59 GMT' }, 60_000],
  ])('%s', async (_, headers, ms) => {
    const { server, slept, ask } = await make()
    server.will({ do: 'status', status: 429, headers }, said(GOOD))
    expect((await ask()).kind).toBe('proposal')
    expect(slept).toEqual([ms])
  })

  it('stops at the first 429 when told to', async () => {
    const { server, slept, ask } = await make({ onRateLimit: 'stop' })
    server.will({ do: 'status', status: 429, type: 'rate_limit_error' })
    expect(await ask()).toMatchObject({ kind: 'refused', why: expect.stringContaining('429') })
    expect(slept).toEqual([])
  })

  it('is unavailable, not dead, after the last retry', async () => {
    const { server, ask } = await make()
    server.will({ do: 'status', status: 529, type: 'overloaded_error', message: 'Overloaded' })
    expect(await ask()).toMatchObject({ kind: 'unavailable', why: expect.stringContaining('529 overloaded_error: Overloaded') })
    expect(server.seen).toHaveLength(4)
  })

  it('is unavailable when the connection is refused', async () => {
    const { ask, slept } = await make({ baseURL: 'http://127.0.0.1:9' })
    expect(await ask()).toMatchObject({ kind: 'unavailable', why: expect.stringMatching(/connection/i) })
    expect(slept).toHaveLength(3)
  })

  it.each<[string, Behaviour]>([
    ['cut in the middle', { do: 'cut', text: GOOD.slice(0, 200) }],
    ['that stalls', { do: 'stall', text: GOOD.slice(0, 200) }],
    ['with an overload inside', { do: 'event', type: 'overloaded_error', message: 'Overloaded' }],
  ])('asks again after a stream %s, and is unavailable when it stays so', async (_, behaviour) => {
    const { server, slept, ask } = await make({ patience: { retries: 1, stallMs: 150 } })
    server.will(behaviour, said(GOOD))
    expect((await ask()).kind).toBe('proposal')
    expect(slept).toHaveLength(1)
    server.will(behaviour)
    expect((await ask()).kind).toBe('unavailable')
  })

  it.each<[string, Behaviour, RegExp]>([
    ['cut off by max_tokens', { do: 'answer', text: GOOD.slice(0, 300), stop: 'max-tokens' }, /cut off at 32000 tokens/],
    ['that is a refusal', { do: 'answer', text: 'I cannot help.', stop: 'refusal' }, /declined/],
    ['that is empty', said(''), /empty answer/],
    ['with no code', said('HYPOTHESIS: try harder\n\nGood luck.'), /no code block/],
    ['with a block that never ends', said(GOOD.replace(/```\n$/, '')), /no code block/],
    ['with several code blocks', said(`${GOOD}\n${block(FASTER)}`), /2 code blocks/],
    [
      'with a diff that does not apply',
      said(block('@@ -1 +1 @@\n-nothing like it\n+x', 'diff')),
      /hunk 1 of 1 does not apply: kernel.py has no line 'nothing/,
    ],
    ['identical to the incumbent', said(block(`# again\n${KERNEL}`)), /identical to the incumbent/],
    ['of 10 MB', said(`${'word '.repeat(2_000_000)}\n${GOOD}`), /an answer of 10.* million characters/],
    ['with a kernel of 300 kB', said(block(`${KERNEL}X = "${'x'.repeat(300_000)}"\n`)), /at most 256 KiB/],
    ['in invalid UTF-8', { do: 'bytes', text: block(KERNEL.replace('once in', '\u00e9once')) }, /not be valid UTF-8/],
    ['without kernel_fn', said(block('import torch\ndef kernel(x):\n    return x')), /kernel_fn/],
    [
      'that edits another file',
      said(block('--- a/bench/bench.py\n+++ b/bench/bench.py\n@@ -1 +1 @@\n-a\n+b', 'diff')),
      /other files.*bench\/bench\.py/,
    ],
    ['that asks to write another file', said(block(FASTER, 'python title="conftest.py"')), /other files.*conftest\.py/],
  ])('calls an answer %s invalid, bills it and goes on', async (_, behaviour, why) => {
    const { server, ask } = await make()
    server.will(behaviour)
    expect(await ask()).toMatchObject({ kind: 'invalid', why: expect.stringMatching(why), agent: name, tokens: 5500 })
    expect(server.seen).toHaveLength(1)
    server.will(said(GOOD))
    expect((await ask()).kind).toBe('proposal')
  })

  it('calls a program that was tried before invalid and names the attempt', async () => {
    const { agent, server } = await make()
    server.will(said(GOOD))
    const attempts = [attempt({ hypothesis: 'sixteen warps', source: FASTER })]
    expect(await agent.propose(request({ attempts }), never)).toMatchObject({
      kind: 'invalid',
      why: expect.stringContaining('sixteen warps'),
    })
    const tried = (hash: string): boolean => hash === normalizedHash(FASTER)
    expect(await agent.propose(request({ id: 2, tried }), never)).toMatchObject({
      kind: 'invalid',
      why: expect.stringContaining('tried before'),
    })
  })

  it('calls an idea that was measured before invalid in any other words’ case, but not one that only crashed', async () => {
    const { agent, server } = await make()
    server.will(said(GOOD))
    const measured = attempt({
      experiment: 7,
      hypothesis: 'More warps hide the load latency! (swept: BLOCK 1024 -> 2048)',
      outcome: 'slower',
    })
    expect(await agent.propose(request({ attempts: [measured] }), never)).toMatchObject({
      kind: 'invalid',
      why: 'the same idea as experiment 7, which was slower',
    })
    const crashed = { ...measured, outcome: 'crash' as const, gain: null }
    expect((await agent.propose(request({ id: 2, attempts: [crashed] }), never)).kind).toBe('proposal')
  })

  it('sweeps the constants that an answer marks, as many as an experiment may try', async () => {
    const { agent, server } = await make()
    server.will(said(GOOD))
    const answer = await agent.propose(request({ sweep: 6 }), never)
    expect(answer).toMatchObject({ kind: 'proposal', proposal: { source: FASTER, hypothesis: 'more warps hide the load latency' } })
    expect(answer.kind === 'proposal' && answer.proposal.sweep.map(({ hypothesis }) => hypothesis)).toEqual(
      Array(5).fill(expect.stringMatching(/^more warps hide the load latency \(swept: /)),
    )
  })

  it('keeps request and answer, and never the key', async () => {
    const { server, ask, records } = await make()
    server.will(said(GOOD.replace('more warps', `more ${KEY} warps`)))
    await ask()
    expect(records.map(([file]) => file)).toEqual(['0001-rmsnorm-request', '0001-rmsnorm-answer'])
    expect(records[0]?.[1]).toMatchObject({
      model: 'house-model',
      system: expect.stringContaining('HYPOTHESIS'),
      messages: [{ role: 'user', text: expect.stringContaining(KERNEL) }],
    })
    expect(records[1]?.[1]).toMatchObject({ reply: { text: expect.stringContaining('more [key] warps') }, usage: [{ output: 400 }] })
    expect(JSON.stringify(records)).not.toContain(KEY)
  })

  it('rejects when the run is stopped, also while it waits', async () => {
    const { agent, server } = await make()
    const stop = new AbortController()
    server.will({ do: 'stall', text: 'so' })
    setTimeout(() => stop.abort(new Error('stopped')), 30)
    await expect(agent.propose(request(), stop.signal)).rejects.toThrow()
  })
})
