/** A repair goes on with the conversation it belongs to, through the real SDKs, and an answer that was paid for is not paid for twice. */
import { describe, expect, it } from 'vitest'
import type { Answer, Repair } from '../../src/types.ts'
import { block, FASTER, GOOD, type Make, makeAnthropic, makeOpenai, said } from '../support/llm-agents.ts'
import { KERNEL, never, request } from '../support/request.ts'

const AGENTS: [string, Make][] = [
  ['anthropic', makeAnthropic],
  ['openai', makeOpenai],
]
const WORDS = 'build: num_warps must be a power of 2'
const REPAIRED = KERNEL.replace('NUM_WARPS = 4 ', 'NUM_WARPS = 8 ')

function failed(answer: Answer, experiment: number): Repair {
  if (answer.kind !== 'proposal') throw new Error(answer.kind)
  return { experiment, proposal: answer.proposal, outcome: 'crash', detail: WORDS }
}

type Body = { system?: { text: string }[]; messages: { role: string; content: string | { text: string; cache_control?: object }[] }[] }
const textOf = (message: Body['messages'][number] | undefined): string =>
  typeof message?.content === 'string' ? message.content : (message?.content[0]?.text ?? '')

describe.each(AGENTS)('%s', (name, make) => {
  it('repairs inside one conversation whose beginning stays the same to the byte', async () => {
    const { agent, server } = await make()
    server.will(said(GOOD), said(block('import torch\n# nothing', 'python')), said(block(REPAIRED.trimEnd())))
    const first = await agent.propose(request({ id: 1 }), never)
    const repair = failed(first, 5)
    expect(await agent.propose(request({ id: 2, repair }), never)).toMatchObject({ kind: 'invalid' })
    const second = await agent.propose(request({ id: 3, repair, steer: 'a new wish', attempts: [] }), never)
    expect(second).toMatchObject({
      proposal: { source: REPAIRED, hypothesis: 'repair of #5: it is faster', thread: { ask: 3, repairs: 1 }, agent: name },
    })
    const bodies = server.seen.map(({ body }) => body as Body)
    const turns = bodies.map(({ messages }) => messages.filter(({ role }) => role !== 'system'))
    expect(turns.map((messages) => messages.map(({ role }) => role))).toEqual([
      ['user'],
      ['user', 'assistant', 'user'],
      ['user', 'assistant', 'user'],
    ])
    expect(turns[2]?.map(textOf).slice(0, 2)).toEqual([textOf(turns[0]?.[0]), GOOD])
    expect(textOf(turns[2]?.[2])).toContain(`\`\`\`text\n${WORDS}\n\`\`\``)
    expect(bodies[2]?.system).toEqual(bodies[0]?.system)
  })

  it('goes on with the repaired one when that fails too, and asks for what is left of three tries', async () => {
    const { agent, server } = await make()
    server.will(said(GOOD), said(block(REPAIRED.trimEnd())), said(block(KERNEL.replace('NUM_WARPS = 4 ', 'NUM_WARPS = 2 '))))
    const first = await agent.propose(request({ id: 1 }), never)
    const second = await agent.propose(request({ id: 2, repair: failed(first, 5) }), never)
    const third = await agent.propose(request({ id: 3, repair: failed(second, 6) }), never)
    expect(third).toMatchObject({ proposal: { thread: { ask: 3, repairs: 2 } } })
    const { messages } = (server.seen.at(-1)?.body ?? { messages: [] }) as Body
    expect(messages.filter(({ role }) => role !== 'system')).toHaveLength(5)
    expect(textOf(messages.at(-1))).toContain('2 tries are left')
  })

  it('rebuilds the conversation from the journal alone when the records are gone', async () => {
    const before = await make()
    before.server.will(said(GOOD))
    const repair = failed(await before.agent.propose(request({ id: 1 }), never), 5)
    const { agent, server } = await make() // another process, an empty llm/
    server.will(said(block(REPAIRED.trimEnd())))
    expect(await agent.propose(request({ id: 9, repair }), never)).toMatchObject({ proposal: { source: REPAIRED } })
    const messages = ((server.seen[0]?.body ?? { messages: [] }) as Body).messages.filter(({ role }) => role !== 'system')
    expect(messages).toHaveLength(3)
    expect(textOf(messages[1])).toContain(FASTER)
  })

  it('applies a diff to the kernel.py that was judged', async () => {
    const { agent, server } = await make({ editFormat: 'diff' })
    const diff = [
      '@@',
      ' BACKEND = "triton"',
      ' BLOCK = 1024  # tune: 256 512 1024 2048 4096',
      '-NUM_WARPS = 16  # tune: 2 4 8',
      '+NUM_WARPS = 8  # tune: 2 4 8',
    ].join('\n')
    server.will(said(GOOD), said(block(diff, 'diff')))
    const first = await agent.propose(request({ id: 1 }), never)
    expect(await agent.propose(request({ id: 2, repair: failed(first, 5) }), never)).toMatchObject({ proposal: { source: REPAIRED } })
  })

  it('asks again after a crash only when the answer had not come, and bills the recorded one once more at its price', async () => {
    const { agent, server } = await make()
    server.will(said(GOOD), said(block(REPAIRED.trimEnd())))
    const paid = await agent.propose(request({ id: 1 }), never)
    expect(await agent.propose(request({ id: 1 }), never)).toEqual(paid) // the run went down before it wrote the answer down
    expect(server.seen).toHaveLength(1)
    expect(await agent.propose(request({ id: 2 }), never)).toMatchObject({ proposal: { source: REPAIRED } })
    expect(server.seen).toHaveLength(2)
  })

  it('asks again when what is recorded is a failure', async () => {
    const { agent, server } = await make({ patience: { retries: 0 } })
    server.will({ do: 'status', status: 529 }, said(GOOD))
    expect((await agent.propose(request({ id: 1 }), never)).kind).toBe('unavailable')
    expect((await agent.propose(request({ id: 1 }), never)).kind).toBe('proposal')
  })
})

it('lets Claude read the conversation from its cache from the first repair on', async () => {
  const { agent, server } = await makeAnthropic()
  server.will(said(GOOD), said(block(REPAIRED.trimEnd())))
  const first = await agent.propose(request({ id: 1 }), never)
  await agent.propose(request({ id: 2, repair: failed(first, 5) }), never)
  const marks = server.seen.map(({ body }) =>
    (body as Body).messages.map(({ content }) => typeof content !== 'string' && content[0]?.cache_control !== undefined),
  )
  expect(marks).toEqual([[false], [false, false, true]])
})
