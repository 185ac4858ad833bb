/** The search: reproducible, never twice, near before far, and learning. */
import { expect, it } from 'vitest'
import { candidates, searchAgent } from '../../src/agents/search.ts'
import { permutation } from '../../src/core/shuffle.ts'
import { normalizedHash } from '../../src/core/source-hash.ts'
import { applyTunables, findTunables } from '../../src/core/tunables.ts'
import type { Request } from '../../src/ports.ts'
import type { Proposal } from '../../src/types.ts'
import { attempt, KERNEL, never, request } from '../support/request.ts'

async function propose(asked: Request): Promise<Proposal> {
  const answer = await searchAgent.propose(asked, never)
  if (answer.kind !== 'proposal') throw new Error(`${answer.kind}: ${'why' in answer ? answer.why : ''}`)
  return answer.proposal
}

const settings = (source: string): Record<string, string> =>
  Object.fromEntries(findTunables(source).map(({ name, values, current }) => [name, values[current] ?? '']))

/** Everything untried, as the sources that it means. */
function* sources(asked: Request): Generator<string> {
  for (const { values } of candidates(asked)) yield applyTunables(asked.incumbent.source, values)
}

it('answers the same request with the same source, and another seed with another order', async () => {
  const orders = [1, 2, 3, 4, 5, 6].map((seed) => [...candidates(request({ seed }))].map(({ hypothesis }) => hypothesis).join())
  expect((await propose(request())).source).toBe((await propose(request())).source)
  expect(new Set(orders).size).toBeGreaterThan(1)
})

it('tries one step of one constant first, then two steps together, then the rest, each once', () => {
  const all = [...sources(request())].map(settings)
  const steps = ['256', '512', '1024', '2048', '4096']
  const distance = (s: Record<string, string>) => [
    Math.abs(steps.indexOf(s.BLOCK ?? '') - 2),
    Math.abs(['2', '4', '8'].indexOf(s.NUM_WARPS ?? '') - 1),
  ]
  expect(all).toHaveLength(5 * 3 - 1)
  expect(new Set(all.map((s) => JSON.stringify(s))).size).toBe(14)
  expect(all.slice(0, 4).map((s) => distance(s).reduce((a, b) => a + b))).toEqual([1, 1, 1, 1])
  expect(all.slice(4, 8).map(distance)).toEqual([
    [1, 1],
    [1, 1],
    [1, 1],
    [1, 1],
  ])
})

it('proposes for free, in words a person understands, based on the incumbent', async () => {
  const only = KERNEL.replace('  # tune: 2 4 8', '').replace('256 512 1024 2048 4096', '1024 2048')
  const asked = request({ incumbent: { ...request().incumbent, source: only } })
  expect(await propose(asked)).toMatchObject({
    hypothesis: 'BLOCK 1024 -> 2048: fewer, wider blocks: more reuse and fewer starts',
    source: only.replace('BLOCK = 1024 ', 'BLOCK = 2048 '),
    basedOn: asked.incumbent.commit,
    costUsd: 0,
    disposable: true,
  })
})

it.each([
  ['USE_TMA = 0  # tune: 0 1', 'USE_TMA 0 -> 1: switched on'],
  ["ORDER = 'row'  # tune: 'row' 'col'", "ORDER 'row' -> 'col': the other way to do the same"],
  ['PER_THREAD = 8  # tune: 8 16', 'PER_THREAD 8 -> 16: more elements in flight per thread'],
  ['ZEBRA = 2  # tune: 1 2', 'ZEBRA 2 -> 1: a step down'],
])('says what %s would mean', async (line, hypothesis) => {
  const source = `${line}\ndef kernel_fn(x):\n    return x\n`
  expect(await propose(request({ incumbent: { ...request().incumbent, source } }))).toMatchObject({ hypothesis })
})

it.each(['tried', 'inFlight', 'attempts'] as const)('never proposes a source that is in %s', async (where) => {
  const first = await propose(request())
  const sourceHash = normalizedHash(first.source)
  const places = {
    tried: { tried: (hash: string) => hash === sourceHash },
    inFlight: { inFlight: [{ hypothesis: first.hypothesis, sourceHash }] },
    attempts: { attempts: [attempt({ sourceHash })] },
  }
  const untried = [...sources(request(places[where]))]
  expect(untried).toHaveLength(13)
  expect(untried).not.toContain(first.source)
})

it('never comes back to a combination that a former incumbent had', () => {
  const former = normalizedHash(KERNEL)
  const now = applyTunables(KERNEL, { BLOCK: '2048' })
  const asked = request({ incumbent: { ...request().incumbent, source: now }, tried: (hash) => hash === former })
  expect([...sources(asked)]).not.toContain(KERNEL)
})

it('goes on in the direction that gained', async () => {
  const now = applyTunables(KERNEL, { BLOCK: '2048' })
  const gained = attempt({ hypothesis: 'BLOCK 1024 -> 2048: wider', outcome: 'keep', gain: 1.2, agent: 'search' })
  for (const seed of [1, 2, 3, 4, 5]) {
    const asked = request({ seed, incumbent: { ...request().incumbent, source: now }, attempts: [gained] })
    expect(settings((await propose(asked)).source)).toEqual({ BLOCK: '4096', NUM_WARPS: '4' })
  }
})

it('leaves the direction that crashed for last', () => {
  const crashed = attempt({ hypothesis: 'BLOCK 1024 -> 2048: wider', outcome: 'crash', gain: null, agent: 'search' })
  const first = [...sources(request({ attempts: [crashed] }))].slice(0, 4).map((source) => settings(source).BLOCK)
  expect(first[0]).toBe('512')
  expect(first[3]).toBe('2048')
})

it('says what is used up when every combination was tried, and when nothing is marked', async () => {
  const allTried = request({ tried: () => true })
  expect(await searchAgent.propose(allTried, never)).toEqual({
    kind: 'exhausted',
    why: 'every combination of BLOCK, NUM_WARPS has been tried',
  })
  const plain = request({ incumbent: { ...request().incumbent, source: 'def kernel_fn(x):\n    return x\n' } })
  expect(await searchAgent.propose(plain, never)).toMatchObject({ kind: 'exhausted', why: expect.stringContaining('# tune:') })
})

it('finds its next point in a space of a million, 2000 of them tried, in seconds, not minutes', async () => {
  const marks = ['A', 'B', 'C', 'D', 'E', 'F'].map((name) => `${name} = 5  # tune: 0 1 2 3 4 5 6 7 8 9`).join('\n')
  const asked = request({ incumbent: { ...request().incumbent, source: `${marks}\n${KERNEL.replaceAll('tune', 'was')}` } })
  const tried = new Set<string>()
  for (const source of sources(asked)) {
    tried.add(normalizedHash(source))
    if (tried.size === 2000) break
  }
  const start = performance.now()
  const next = await propose({ ...asked, tried: (hash) => tried.has(hash) })
  expect(performance.now() - start).toBeLessThan(5000) // hashing a million points would take a minute
  expect(tried.has(normalizedHash(next.source))).toBe(false)
})

it.each([1, 2, 3, 64, 1000, 1025])('walks a range of %i in another order, each place once', (size) => {
  const turn = permutation(size, 42)
  const places = Array.from({ length: size }, (_, i) => turn(i))
  expect([...places].sort((a, b) => a - b)).toEqual(Array.from({ length: size }, (_, i) => i))
})
