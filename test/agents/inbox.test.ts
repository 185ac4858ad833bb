/** A folder as the source of ideas, against the real file system. */
import { appendFile, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, expect, it } from 'vitest'
import { type Inbox, type InboxOptions, inboxAgent } from '../../src/agents/inbox.ts'
import { normalizedHash } from '../../src/core/source-hash.ts'
import type { Answer } from '../../src/types.ts'
import { attempt, KERNEL, never, request } from '../support/request.ts'
import { scratchFolder } from '../support/scratch.ts'

const kernel = (warps: number): string => KERNEL.replace('NUM_WARPS = 4 ', `NUM_WARPS = ${warps} `)
const open: Inbox[] = []
afterEach(async () => {
  for (const inbox of open.splice(0)) await inbox.close()
})

async function start(
  options: Partial<InboxOptions> = {},
): Promise<Inbox & { folder: string; write: (name: string, text: string) => Promise<void> }> {
  const folder = options.folder ?? (await scratchFolder())
  const inbox = await inboxAgent({ folder, idleMs: null, settleMs: 60, ...options })
  open.push(inbox)
  return { ...inbox, folder, write: (name, text) => writeFile(join(folder, name), text) }
}

const idea = (answer: Answer): string => (answer.kind === 'proposal' ? answer.proposal.hypothesis : `${answer.kind}: ${answer.why}`)

it('judges what is there in name order, each with its idea', async () => {
  const folder = await scratchFolder()
  for (const name of ['c', 'a', 'b']) await writeFile(join(folder, `${name}.py`), kernel(name.charCodeAt(0)))
  await writeFile(join(folder, 'b.md'), '# More warps\n\nbecause.\n')
  const { agent } = await start({ folder })
  const answers = [await agent.propose(request(), never), await agent.propose(request(), never), await agent.propose(request(), never)]
  expect(answers.map(idea)).toEqual(['a', 'More warps', 'c'])
  expect(answers[0]).toMatchObject({ proposal: { source: kernel(97), agent: 'inbox', costUsd: 0, basedOn: 'abc1234' } })
})

it('waits with nothing in it, and answers when something comes', async () => {
  const { agent, write } = await start()
  const answer = agent.propose(request(), never)
  setTimeout(() => void write('late.py', kernel(1)), 50)
  expect(idea(await answer)).toBe('late')
})

it('is exhausted when nothing came for as long as was asked', async () => {
  const { agent } = await start({ idleMs: 120 })
  expect(await agent.propose(request(), never)).toEqual({ kind: 'exhausted', why: 'nothing came into the inbox for 0 s' })
})

it('does not take a file that is still being written', async () => {
  const { agent, folder, write } = await start({ settleMs: 200 })
  const answer = agent.propose(request(), never)
  const [head = '', ...rest] = kernel(2).split(/(?=@triton)/)
  await write('slow.py', head)
  await new Promise((resolve) => setTimeout(resolve, 120))
  await appendFile(join(folder, 'slow.py'), rest.join(''))
  expect(await answer).toMatchObject({ proposal: { source: kernel(2) } })
})

it('writes the verdict beside the file, when told and when a later request shows it', async () => {
  const { agent, folder, write, verdict, nameOf } = await start()
  await write('a.py', kernel(1))
  await write('b.py', kernel(2))
  await agent.propose(request(), never)
  await agent.propose(request(), never)
  expect(nameOf(normalizedHash(kernel(1)))).toBe('a')
  await verdict('a', 'keep: 1.2x')
  const attempts = [attempt({ source: kernel(2), experiment: 9, outcome: 'slower', gain: 0.9, detail: 'two passes' })]
  await write('c.py', kernel(3))
  await agent.propose(request({ attempts }), never)
  expect(await readFile(join(folder, 'a.verdict.md'), 'utf8')).toBe('keep: 1.2x\n')
  expect(await readFile(join(folder, 'b.verdict.md'), 'utf8')).toBe(
    "slower (experiment 9, 0.900x of the incumbent's speed)\n\ntwo passes\n",
  )
})

it('answers an unusable file at once, in its verdict too', async () => {
  const { agent, folder, write } = await start()
  await write('bad.py', 'import torch\n')
  expect(await agent.propose(request(), never)).toMatchObject({ kind: 'invalid', agent: 'inbox', hypothesis: 'bad' })
  expect(await readFile(join(folder, 'bad.verdict.md'), 'utf8')).toContain('kernel_fn')
})

it('leaves a kernel for another operation for its turn', async () => {
  const { agent, write } = await start()
  await write('a.py', kernel(1).replace('KERNEL_TYPE = "rmsnorm"', 'KERNEL_TYPE = "softmax"'))
  expect(idea(await agent.propose(request(), never))).toBe('exhausted: the inbox holds kernels for softmax only')
  await write('b.py', kernel(2))
  expect(idea(await agent.propose(request(), never))).toBe('b')
  const softmax = { ...request().target, name: 'softmax', op: 'softmax' }
  expect(idea(await agent.propose(request({ target: softmax }), never))).toBe('a')
})

it('finds its place again after a restart: judged files keep their verdict, the others go on', async () => {
  const folder = await scratchFolder()
  for (const [i, name] of ['a', 'b', 'c'].entries()) await writeFile(join(folder, `${name}.py`), kernel(i + 1))
  await writeFile(join(folder, 'a.verdict.md'), 'keep\n')
  const { agent } = await start({ folder })
  const attempts = [attempt({ source: kernel(2), outcome: 'wrong', gain: null, detail: 'nan' })]
  expect(idea(await agent.propose(request({ attempts }), never))).toBe('c')
  expect((await readdir(folder)).sort()).toEqual(['a.py', 'a.verdict.md', 'b.py', 'b.verdict.md', 'c.py'])
})

it('judges a file again that was changed after its verdict', async () => {
  const { agent, write, verdict } = await start()
  await write('a.py', kernel(1))
  await agent.propose(request(), never)
  await verdict('a', 'wrong')
  await write('a.py', kernel(2))
  expect(await agent.propose(request(), never)).toMatchObject({ proposal: { source: kernel(2) } })
})

it('rejects when the run is stopped while it waits', async () => {
  const { agent } = await start()
  const stop = new AbortController()
  setTimeout(() => stop.abort(new Error('stopped')), 30)
  await expect(agent.propose(request(), stop.signal)).rejects.toThrow('stopped')
})
