/** All five agents drive one small run on the CPU, through the real program, SDKs and judge; then a key that is refused ends it with exit 4. */
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { LedgerRow } from '../../src/core/ledger.ts'
import { anthropicServer } from '../support/anthropic-server.ts'
import { KEY } from '../support/llm-agents.ts'
import type { Behaviour, LlmServer } from '../support/llm-server.ts'
import { everythingIn } from '../support/night.ts'
import { openaiServer } from '../support/openai-server.ts'
import { type Outcome, World } from '../support/world.ts'

const MINUTES = 60_000
const OTHER_KEY = 'sk-test-another-fedcba9876543210'

/** Right, whoever wrote it; slow or fast is for the judge to say. */
const kernel = (author: string, first = ''): string => `KERNEL_TYPE = "softmax"
BACKEND = "cpp"
import os
import torch


def kernel_fn(x):
    ${first || `author = "${author}"`}
    y = torch.exp(x.float() - x.float().amax(dim=-1, keepdim=True))
    return (y / y.sum(dim=-1, keepdim=True)).to(x.dtype).contiguous()
`
/** What a kernel sees of its environment stands in the error, which goes into the journal, the ledger and the next prompt. */
const LEAK = `raise RuntimeError("keys: " + repr([v for v in os.environ.values() if "sk-test" in v]) + " of " + str(len(os.environ)))`
const answer = (hypothesis: string, source: string): Behaviour => ({
  do: 'answer',
  text: `HYPOTHESIS: ${hypothesis}\nPREDICTED: 1.05\n\n\`\`\`python\n${source}\`\`\`\n`,
})
const REFUSED: Behaviour = { do: 'status', status: 401, type: 'authentication_error', message: 'the key has been revoked' }

describe('--agent anthropic,openai,inbox,command, then search', () => {
  const world = World.repository('models/tiny_softmax.py')
  let servers: { anthropic: LlmServer; openai: LlmServer }
  let env: NodeJS.ProcessEnv
  let outcome: Outcome
  let searched: Outcome
  let refused: Outcome
  let rows: LedgerRow[]
  let report: string
  const run = join(world.folder, '.autokernel', 'runs', 'five')

  beforeAll(async () => {
    servers = { anthropic: await anthropicServer(), openai: await openaiServer() }
    // The second new idea is asked for while the first is judged, before it is known that this one needs a repair.
    servers.anthropic.always((n, body) => {
      if (n === 1) return answer('anthropic says so', kernel('anthropic', LEAK))
      if (body.includes('"role":"assistant"')) return answer('without the error', kernel('anthropic'))
      return n === 2 ? answer('anthropic says more', kernel('anthropic again')) : REFUSED
    })
    servers.openai.will(answer('openai says so', kernel('openai')), REFUSED)
    env = {
      ANTHROPIC_API_KEY: KEY,
      ANTHROPIC_BASE_URL: servers.anthropic.url,
      OPENAI_API_KEY: OTHER_KEY,
      OPENAI_BASE_URL: `${servers.openai.url}/v1`,
    }
    mkdirSync(join(run, 'inbox'), { recursive: true })
    writeFileSync(join(run, 'inbox', 'mine.py'), kernel('a person'))
    writeFileSync(join(run, 'inbox', 'mine.md'), 'a person had this idea\n')
    const script = join(world.folder, 'coder.sh')
    writeFileSync(script, `#!/bin/sh\ncat > kernel.py <<'END'\n${kernel('a program')}END\necho 'IDEA: a program had this idea'\n`)
    chmodSync(script, 0o755)
    const flags = ['--in-flight', '1', '--inbox-idle', '1s', '--command', script, '--max-discards', '20', '--sweep', '2', '--peak', '100%']
    const agents = ['--agent', 'anthropic,openai,inbox,command', '--max-experiments', '6']
    outcome = await world.autokernelWith(env, 'optimize', '--model', 'tiny_softmax.py', '--run', 'five', ...agents, ...flags)
    searched = await world.autokernelWith(env, 'optimize', '--resume', 'five', '--agent', 'search', '--max-experiments', '7')
    rows = world.rows().filter((row) => row.experiment !== '0')
    report = readFileSync(join(run, 'REPORT.md'), 'utf8') // going on removes it
    // Here, since the servers close after the first test.
    refused = await world.autokernelWith(env, 'optimize', '--resume', 'five', '--agent', 'anthropic', '--max-experiments', '9', '-q')
  }, 20 * MINUTES)
  afterAll(() => world.remove())

  const experiments = () => rows

  it('gives each of them its turn, in order, and ends well', () => {
    expect(outcome, outcome.stderr).toMatchObject({ code: 0 })
    expect(searched, searched.stderr).toMatchObject({ code: 0 })
    const agents = ['anthropic', 'anthropic', 'anthropic', 'openai', 'inbox', 'command', 'search']
    expect(experiments().map(({ agent }) => agent)).toEqual(agents)
  })

  it('repairs what crashed inside one conversation, with the judge’s words', () => {
    expect(experiments().map(({ status }) => status === 'crash')).toEqual([true, ...Array<boolean>(6).fill(false)])
    const { messages } = (servers.anthropic.seen[2]?.body ?? { messages: [] }) as { messages: { role: string }[] }
    expect(messages.map(({ role }) => role)).toEqual(['user', 'assistant', 'user'])
    expect(experiments()[2]?.description).toMatch(/^repair of #1: without the error/)
  })

  it('bills what the two providers said they used; a coding agent’s answer counts, at no known price', () => {
    expect(report).toMatch(/22000 tokens in 5 answers of a model/)
    expect(report).toMatch(/The device had nothing to measure in \d+\.\d % of that time/)
  })

  it('writes the verdict beside what was dropped into the inbox', () => {
    expect(readFileSync(join(run, 'inbox', 'mine.verdict.md'), 'utf8')).toMatch(/^[a-z-]+ \(experiment 5/)
  })

  it('shows its keys to no kernel and leaves them in no file, commit or word', () => {
    const left = everythingIn(world.folder)
    expect(left).toMatch(/keys: \[\] of \d+/) // a kernel looked
    for (const key of [KEY, OTHER_KEY])
      for (const text of [left, outcome.stdout, outcome.stderr, searched.stderr]) expect(text.includes(key)).toBe(false)
  })

  it('ends with exit 4 and one line when the only agent’s key is refused, and can be resumed', () => {
    expect(refused).toMatchObject({ code: 4, stdout: '' })
    expect(refused.stderr.trim().split('\n')).toEqual([expect.stringMatching(/401 authentication_error.*--resume five/)])
  })
})
