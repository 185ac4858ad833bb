/** Quick timing against a judge that does what it is told: what is asked of it, what drops out, and that a wrong result cannot win. */

import { readdirSync, readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { settingsAround, settingsOf } from '../src/core/sweep.ts'
import { Declined } from '../src/effects/judge.ts'
import { withFiles } from '../src/effects/temporary.ts'
import { performer } from '../src/perform.ts'
import type { World } from '../src/ports.ts'
import type { Check, Timing } from '../src/schema.ts'
import type { Happened, Proposal, Quick } from '../src/types.ts'
import { check, device, proposal, round, run, sha, target, timing, uncounted } from './support/make.ts'
import { request } from './support/request.ts'
import { scratchFolder } from './support/scratch.ts'

const VALUES = Array.from({ length: 60 }, (_, i) => i + 1)
const KERNEL = `N = 1  # tune: ${VALUES.join(' ')}\ndef kernel_fn(x):\n    return x\n`

type Behaviour = {
  us: (n: number) => number | 'crash' | 'wrong'
  quick?: Check['verdict']
  asked?: (sides: number[], rounds: number) => void
}

/** A judge that reads N from the files it is given; the incumbent takes 100 us. */
function judge({ us, quick = 'pass', asked }: Behaviour): World['evaluator'] {
  return {
    check: async (_, __, options) => {
      if (!options.quick) throw new Error('a sweep has no business with all five stages')
      return check(quick, quick === 'pass' ? '' : 'its words')
    },
    time: async (_, sides, rounds): Promise<Timing> => {
      const sources = sides.map((side) => (side.kind === 'file' && side.name !== 'incumbent' ? readFileSync(side.path, 'utf8') : ''))
      const numbers = sources.map((source) => Number(/^N = (\d+)/.exec(source)?.[1] ?? 0))
      asked?.(numbers.slice(1), rounds)
      const times = sides.map(({ name }, i): [string, number | 'crash' | 'wrong'] => [
        name,
        name === 'incumbent' ? 100 : us(numbers[i] ?? 0),
      ])
      for (const [side, result] of times)
        if (typeof result === 'string') return timing([], { side, kind: result, detail: 'says the judge' })
      return timing(Array.from({ length: rounds }, () => round(Object.fromEntries(times) as Record<string, number>)))
    },
    counters: uncounted,
    close: async () => {},
  }
}

async function swept(
  evaluator: World['evaluator'],
  count: number,
): Promise<{ happened: Happened | null; quick: Map<number, Quick | null>; left: string[] }> {
  const folder = await scratchFolder()
  const nobody = (): never => {
    throw new Error('a sweep needs the judge alone')
  }
  const world: World = {
    evaluator,
    agent: { name: 'nobody', propose: nobody },
    repo: { candidate: nobody, keep: nobody, reset: nobody, source: nobody },
    ledger: { append: nobody },
    fileOf: async () => 'incumbent.py',
    withFiles: (sources, use) => withFiles(folder, sources, use),
    playbook: () => '',
    steer: () => '',
  }
  const idea: Proposal = { ...proposal('rmsnorm', KERNEL), sweep: settingsAround(KERNEL, 'idea', request({ sweep: count })) }
  const effect = {
    type: 'sweep' as const,
    number: 1,
    proposal: idea,
    parent: sha(1),
    target: target('rmsnorm'),
    bytes: 1e6,
    budgetMs: 60_000,
  }
  const state = { run: { ...run(['rmsnorm']), device }, paused: false } as Parameters<ReturnType<typeof performer>>[1]
  const happened = await performer(world)(effect, state)
  const numbers = settingsOf(idea).map((source) => Number(/^N = (\d+)/.exec(source)?.[1]))
  const samples = happened?.type === 'swept' ? happened.quick : []
  return { happened, quick: new Map(numbers.map((n, i) => [n, samples[i] ?? null])), left: readdirSync(folder) }
}

const fastest = (quick: Map<number, Quick | null>): number | undefined =>
  [...quick]
    .filter(([, q]) => q?.gain != null)
    .sort(([, a], [, b]) => (b?.ratios.length ?? 0) - (a?.ratios.length ?? 0) || (b?.gain ?? 0) - (a?.gain ?? 0))[0]?.[0]

it('finds the best of 60 settings in fewer process starts than three rounds of all, always beside the incumbent', async () => {
  const starts: number[] = []
  const { quick, left } = await swept(
    judge({ us: (n) => 50 + Math.abs(n - 41), asked: (sides, rounds) => starts.push(sides.length * rounds) }),
    60,
  )
  expect(quick.size).toBe(60)
  expect(fastest(quick)).toBe(41)
  expect(quick.get(41)).toMatchObject({ gain: 2 })
  expect(starts.reduce((a, b) => a + b)).toBeLessThan(3 * 60)
  expect(Math.max(...starts)).toBeLessThanOrEqual(16) // never more processes than the memory bears
  expect(left).toEqual([]) // the files are gone
})

it.each(['crash', 'wrong'] as const)('drops a setting that is %s, however fast it would be, and says why', async (kind) => {
  const { quick } = await swept(judge({ us: (n) => (n % 2 === 0 ? kind : 120 - n) }), 12)
  for (const [n, q] of quick) if (n % 2 === 0) expect(q).toEqual({ gain: null, ratios: [], detail: `${kind}: says the judge` })
  expect((fastest(quick) ?? 0) % 2).toBe(1)
})

it.each(['wrong', 'invalid', 'suspect'] as const)('times nothing of a source that a quick check finds %s', async (verdict) => {
  const asked: number[][] = []
  const { quick } = await swept(judge({ us: () => 10, quick: verdict, asked: (sides) => asked.push(sides) }), 12)
  expect(asked).toEqual([])
  expect(quick.get(1)).toEqual({ gain: null, ratios: [], detail: `${verdict}: its words` })
  expect([...quick.values()].filter((q) => q !== null)).toHaveLength(1)
})

it('tries other numbers when those that were written crash, and gives up when the first few crash as well', async () => {
  const some = await swept(judge({ us: (n) => (n < 3 ? 'crash' : 50), quick: 'crash' }), 6)
  expect(some.quick.get(fastest(some.quick) ?? 0)?.gain).toBe(2)
  const asked: number[][] = []
  const none = await swept(judge({ us: () => 'crash', quick: 'crash', asked: (sides) => asked.push(sides) }), 30)
  expect(asked.length).toBeLessThanOrEqual(3)
  expect([...none.quick.values()].filter((q) => q !== null).length).toBeLessThanOrEqual(4)
})

it('stops when the incumbent itself fails beside them: there is no measure then', async () => {
  const evaluator = {
    ...judge({ us: () => 50 }),
    time: async () => timing([], { side: 'incumbent', kind: 'timeout' as const, detail: '' }),
  }
  const { quick } = await swept(evaluator, 12)
  expect([...quick.values()]).toEqual(Array(12).fill(null))
})

it('leaves the verdict to the five stages when the judge declines to time', async () => {
  const evaluator: World['evaluator'] = { ...judge({ us: () => 50 }), time: () => Promise.reject(new Declined('no memory')) }
  expect((await swept(evaluator, 12)).happened).toMatchObject({ type: 'swept', number: 1, quick: Array(12).fill(null) })
})

it('asks once more while the device is too busy, and then takes what there is', async () => {
  let calls = 0
  const honest = judge({ us: (n) => 100 - n })
  const evaluator: World['evaluator'] = {
    ...honest,
    time: async (...args) => {
      calls++
      const timed = await honest.time(...args)
      return { ...timed, rounds: timed.rounds.map((each) => ({ ...each, disturbed: 'others' })) }
    },
  }
  const { quick } = await swept(evaluator, 3)
  expect([...quick.values()].every((q) => q !== null)).toBe(true)
  expect(calls).toBe(2 * 2) // two heats, each asked twice
})
