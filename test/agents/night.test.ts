/** Whole runs with the real SDKs, git, journal and loop: what a provider does never ends the night, leaks a key, or is paid for twice. */
import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { Options } from '../../src/options.ts'
import { anthropicServer } from '../support/anthropic-server.ts'
import { block, KEY, type Make, makeAnthropic, makeOpenai, said } from '../support/llm-agents.ts'
import type { Behaviour, LlmServer } from '../support/llm-server.ts'
import { everythingIn, night, projectFolder } from '../support/night.ts'
import { openaiServer } from '../support/openai-server.ts'
import { KERNEL } from '../support/request.ts'
import { scratchFolder } from '../support/scratch.ts'

/** An idea that nobody had: the n-th. */
const idea = (n: number, hypothesis = `idea number ${n}`): string =>
  `HYPOTHESIS: ${hypothesis}\nPREDICTED: 1.1\n\n\`\`\`python\n${KERNEL.replace('return y', `y.idea = ${n}\n    return y`)}\`\`\`\n`

const PROVIDERS: [string, Make][] = [
  ['anthropic', makeAnthropic],
  ['openai', makeOpenai],
]

const BAD: [string, Behaviour, RegExp][] = [
  ['a rejected request', { do: 'status', status: 400, message: 'max_tokens: too large' }, /400.*too large.*req_7/],
  ['max_tokens reached', { do: 'answer', text: 'HYPOTHESIS: so', stop: 'max-tokens' }, /cut off/],
  ['a refusal', { do: 'answer', text: 'no', stop: 'refusal' }, /declined/],
  ['nothing', said(''), /empty/],
  ['no code', said('HYPOTHESIS: it is fast already'), /no code block/],
  ['several blocks', said(`${idea(900)}${idea(901)}`), /2 code blocks/],
  ['a diff that does not apply', said(block('@@ -1 +1 @@\n-nothing\n+x', 'diff')), /does not apply/],
  ['the incumbent again', said(block(KERNEL)), /identical/],
  ['10 MB', said('word '.repeat(2_000_000)), /million characters/],
  ['invalid UTF-8', { do: 'bytes', text: block(KERNEL.replace('once in', '\u00e9once')) }, /UTF-8/],
  ['an edit of another file', said(block('--- a/bench/x.py\n+++ b/bench/x.py\n@@ -1 +1 @@\n-a\n+b', 'diff')), /other files/],
]
const PASSING: Behaviour[] = [
  { do: 'status', status: 408 },
  { do: 'status', status: 429, headers: { 'retry-after': '5' } },
  { do: 'status', status: 429 },
  { do: 'status', status: 500 },
  { do: 'status', status: 529 },
  { do: 'cut', text: 'HYPOTHESIS' },
  { do: 'stall', text: 'HYPOTHESIS' },
]

describe.each(PROVIDERS)('%s', (name, make) => {
  it('that does everything wrong in turn costs rows and waiting, but no kernel and not the night', async () => {
    const { agent, server } = await make({ patience: { stallMs: 200 } })
    // Each of the bad answers, each passing failure before a good one, and a good idea between any two.
    const script = [...BAD.flatMap(([, bad], i) => [bad, said(idea(i))]), ...PASSING.flatMap((bad, i) => [bad, said(idea(100 + i))])]
    server.will(...script)
    const rows = 2 * BAD.length + PASSING.length
    const { root, state, events } = await night({ root: await projectFolder(), agent, rules: { maxExperiments: rows, maxDiscards: 1000 } })
    expect(state.run.stop).toMatchObject({ reason: 'max-experiments' })
    expect(server.seen).toHaveLength(script.length)
    const answers = events.flatMap((event) => (event.type === 'answered' ? [event.answer] : []))
    const invalid = answers.flatMap((answer) => (answer.kind === 'invalid' ? [answer.why] : []))
    expect(invalid).toHaveLength(BAD.length)
    for (const [i, [, , why]] of BAD.entries()) expect(invalid[i]).toMatch(why)
    const good = BAD.length + PASSING.length
    expect(answers.filter(({ kind }) => kind === 'proposal')).toHaveLength(good)
    expect(state.run.targets.rmsnorm).toMatchObject({ discardsInARow: good, left: null }) // the bad ones do not count
    const ledger = readFileSync(join(root, 'results.tsv'), 'utf8')
    expect(ledger.match(/\tinvalid\t/g)).toHaveLength(BAD.length)
    expect(ledger.split('\n').filter((line) => line.includes(`\t${name}\t`))).toHaveLength(rows)
  })

  it.each([
    ['the environment', provider],
    ['--key-command', withKeyCommand],
  ])('leaves its key from %s in no file, commit, row, word or journal of the run, whatever the provider quotes', async (_, start) => {
    const { flags, env, server } = await start(name)
    server.will(
      said(idea(1, `a key such as ${KEY} in the words`)),
      { do: 'status', status: 400, message: `who sent ${KEY}?` },
      said(idea(2)),
      { do: 'status', status: 401, type: 'authentication_error', message: `Incorrect API key ${KEY}` },
    )
    const root = await projectFolder()
    const { state, said: words } = await night({ root, agent: flags, env })
    const resumed = await night({ root, agent: flags, env }) // the command is asked again: nothing holds the key
    expect(resumed.state.run.stop).toEqual(state.run.stop)
    for (const { headers } of server.seen) expect(headers['x-api-key'] ?? headers.authorization).toMatch(new RegExp(`${KEY}$`))
    expect(state.run.stop).toMatchObject({ reason: 'refused', detail: expect.stringMatching(/401.*\[key\]/) })
    expect(state.run.counted).toBe(3)
    const left = everythingIn(root)
    expect(left).toContain('idea number 2') // it did look into the journal, llm/ and git
    expect(left).not.toContain(KEY)
    expect(words + resumed.said).not.toContain(KEY)
  })

  it('is not paid again for an answer that had come when the daemon was killed', async () => {
    const { flags, env, server } = await provider(name)
    server.always((n) => said(idea(n)))
    const root = await projectFolder()
    const first = await night({ root, agent: flags, env, until: (event) => event.type === 'answered' && event.id === 2 })
    const path = join(root, '.autokernel/runs/night/events.jsonl')
    const lines = readFileSync(path, 'utf8').trimEnd().split('\n')
    const last = `${lines.at(-1)}\n`
    expect(JSON.parse(last)).toMatchObject({ type: 'answered', id: 2 })
    truncateSync(path, Buffer.byteLength(`${lines.join('\n')}\n`) - Buffer.byteLength(last)) // killed before it was written down
    const paid = first.events.filter(({ type }) => type === 'answered').length
    expect(server.seen).toHaveLength(paid)
    const second = await night({ root, agent: flags, env, until: (_, state) => state.run.counted === 3 })
    const sources = second.events.flatMap((event) =>
      event.type === 'answered' && event.answer.kind === 'proposal' ? [event.answer.proposal.source] : [],
    )
    expect(sources.slice(0, 2).map((source) => /y\.idea = (\d+)/.exec(source)?.[1])).toEqual(['1', '2'])
    const bodies = server.seen.map(({ body }) => JSON.stringify(body))
    expect(new Set(bodies).size).toBe(bodies.length)
  })
})

async function provider(name: string): Promise<{ server: LlmServer; flags: Options; env: NodeJS.ProcessEnv }> {
  const server = name === 'anthropic' ? await anthropicServer() : await openaiServer()
  const env = { ANTHROPIC_API_KEY: KEY, OPENAI_API_KEY: KEY, ANTHROPIC_BASE_URL: server.url, OPENAI_BASE_URL: `${server.url}/v1` }
  return { server, flags: { agent: name, 'llm-model': 'house-model' }, env }
}

/** The key is in a file outside the run's folders, and in no environment. */
async function withKeyCommand(name: string): ReturnType<typeof provider> {
  const { server, flags, env } = await provider(name)
  const folder = await scratchFolder()
  writeFileSync(join(folder, name), `${KEY}\n`)
  return {
    server,
    flags: { ...flags, 'key-command': `cat ${join(folder, '{}')}` },
    env: { ...env, ANTHROPIC_API_KEY: undefined, OPENAI_API_KEY: undefined },
  }
}

describe('a provider ten times slower than the judge', () => {
  const ANSWER_MS = 1000
  const JUDGE_MS = 100

  /** The share of the time in which the judge had nothing to do, once the pace is known. */
  async function idleShare(inFlight: number, experiments: number): Promise<{ idle: number; repairs: number }> {
    const { agent, server } = await makeAnthropic()
    server.always((n) => ({ do: 'answer', text: idea(n), afterMs: ANSWER_MS }))
    let from: { idle: number; at: number } | null = null
    const { state, events } = await night({
      root: await projectFolder(),
      agent,
      judgeMs: JUDGE_MS,
      gitless: true,
      rules: { inFlight, maxExperiments: 100 },
      verdictOn: (source) => (/y\.idea = \d*[37]\n/.test(source) ? 'crash' : 'pass'), // one in five goes back for repair
      until: (event, now) => {
        if (event.type === 'settled' && now.run.counted === Math.floor(experiments / 4)) from = { idle: now.run.idleMs, at: event.at }
        last = now
        return now.run.counted === experiments
      },
    })
    const { idle, at } = from ?? { idle: 0, at: 0 }
    const repairs = events.filter(
      (event) => event.type === 'answered' && event.answer.kind === 'proposal' && event.answer.proposal.thread?.repairs,
    )
    return { idle: ((last ?? state).run.idleMs - idle) / ((last ?? state).run.elapsedMs - at), repairs: repairs.length }
  }
  let last: Awaited<ReturnType<typeof night>>['state'] | null = null

  it('leaves it idle for less than 15 % of the time with several in flight and repairs on', { timeout: 60_000 }, async () => {
    const { idle, repairs } = await idleShare(12, 60)
    expect(idle).toBeLessThan(0.15)
    expect(repairs).toBeGreaterThan(3)
  })

  it('would leave it idle for more than 80 % of the time with one at a time', { timeout: 60_000 }, async () => {
    expect((await idleShare(1, 6)).idle).toBeGreaterThan(0.8)
  })
})
