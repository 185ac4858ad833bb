/** Agents in order of preference, and a recorded run as one of them. */
import { expect, it } from 'vitest'
import { chainAgent } from '../../src/agents/chain.ts'
import { replayAgent } from '../../src/agents/replay.ts'
import { normalizedHash } from '../../src/core/source-hash.ts'
import type { Agent } from '../../src/ports.ts'
import { CommitSha } from '../../src/schema.ts'
import type { Answer, Proposal } from '../../src/types.ts'
import { FREE } from '../support/make.ts'
import { KERNEL, never, request } from '../support/request.ts'

const kernel = (warps: number): string => KERNEL.replace('NUM_WARPS = 4 ', `NUM_WARPS = ${warps} `)
const idea = (source: string, target = 'rmsnorm'): Proposal => ({
  target,
  basedOn: CommitSha.parse('fedcba9'),
  source,
  hypothesis: 'more warps',
  predictedGain: 1.1,
  agent: 'anthropic',
  disposable: false,
  thread: null,
  sweep: [],
  written: null,
  costUsd: 0.06,
  tokens: 900,
  turns: 1,
})
const YES: Answer = { kind: 'proposal', proposal: idea(kernel(1)) }
const UNUSABLE: Answer = { kind: 'invalid', why: 'no code', hypothesis: '', agent: 'a', costUsd: 1, tokens: 1, turns: 1 }
const DOWN: Answer = { kind: 'unavailable', why: 'down', ...FREE }
const OUT: Answer = { kind: 'exhausted', why: 'out' }
const NO: Answer = { kind: 'refused', why: 'no money' }

function scripted(...answers: Answer[]): Agent & { asked: number } {
  const agent = {
    name: 'scripted',
    asked: 0,
    propose: async () => answers[Math.min(agent.asked++, answers.length - 1)] ?? OUT,
  }
  return agent
}

it.each<[string, Answer[], Answer]>([
  ['the first that has an idea', [YES, NO], YES],
  ['an unusable answer too, since it was paid for', [UNUSABLE, YES], UNUSABLE],
  ['the next when the first is down', [DOWN, YES], YES],
  ['the next when the first is exhausted', [OUT, YES], YES],
  ['the next when the first is refused', [NO, YES], YES],
  ['down, when waiting may still help', [DOWN, OUT], DOWN],
  ['exhausted, when the paid one is refused and the free one is out', [NO, OUT], OUT],
  ['refused, when nobody is left', [NO], NO],
])('answers with %s', async (_, answers, expected) => {
  const [first = scripted(OUT), ...others] = answers.map((answer) => scripted(answer))
  expect(await chainAgent([first, ...others]).propose(request(), never)).toEqual(expected)
})

it('does not ask again one that refused, and one that is down only after a minute', async () => {
  let time = 0
  const [refused, down, free] = [scripted(NO), scripted(DOWN, YES), scripted(YES)]
  const agent = chainAgent([refused, down, free], () => time)
  for (time of [0, 30_000, 59_000]) await agent.propose(request(), never)
  expect([refused.asked, down.asked, free.asked]).toEqual([1, 1, 3])
  time = 61_000
  await agent.propose(request(), never)
  expect([refused.asked, down.asked, free.asked]).toEqual([1, 2, 3])
})

it('replays a recorded run in order, for this kernel, free, and from where a resumed run is', async () => {
  const agent = replayAgent([idea(kernel(1)), idea(kernel(2), 'softmax'), idea(kernel(3)), idea(KERNEL)])
  expect(await agent.propose(request(), never)).toEqual({
    kind: 'proposal',
    proposal: { ...idea(kernel(1)), basedOn: 'abc1234', agent: 'replay', disposable: true, ...FREE },
  })
  const tried = (hash: string): boolean => hash === normalizedHash(kernel(1))
  expect(await agent.propose(request({ tried }), never)).toMatchObject({ proposal: { source: kernel(3) } })
  expect(await agent.propose(request({ tried: () => true }), never)).toMatchObject({ kind: 'exhausted' })
})
