/** A sweep: which settings are tried, who runs in which heat, what becomes of it in the run, and that it can be cut and resumed. */

import { describe, expect, it } from 'vitest'
import { find } from '../../src/core/known.ts'
import { initialState, step } from '../../src/core/machine.ts'
import { replay } from '../../src/core/recover.ts'
import { beingJudged, measures } from '../../src/core/slots.ts'
import { normalizedHash, writtenHash } from '../../src/core/source-hash.ts'
import { type Entrant, nextHeat, settingsAround, settingsOf } from '../../src/core/sweep.ts'
import { applyTunables } from '../../src/core/tunables.ts'
import type { Baselines, Effect, Event, Happened, Proposal, Quick, Rules, Run, State } from '../../src/types.ts'
import { check, proposal, run, sha, timing } from '../support/make.ts'
import { attempt, KERNEL, request } from '../support/request.ts'

const quick = (gain: number | null, ratios = gain === null ? [] : [gain]): Quick => ({ gain, ratios, detail: gain === null ? 'crash' : '' })

describe('the settings of an idea', () => {
  it('are its nearest neighbours first, as many as the experiment may try, and say what they are', () => {
    const settings = settingsAround(KERNEL, 'one pass', request({ sweep: 8 }))
    expect(settings).toHaveLength(7) // the eighth is the source as written
    const steps = settings.slice(0, 4).map(({ values }) => [values.BLOCK, values.NUM_WARPS].join())
    expect(steps.sort()).toEqual(['1024,2', '1024,8', '2048,4', '512,4'])
    expect(settings[0]?.hypothesis).toMatch(/^one pass \(swept: \w+ \d+ -> \d+\)$/)
  })

  it('hold none that was tried, is in flight, or is the source itself', () => {
    const known = { BLOCK: '512' }
    const asked = request({
      sweep: 99,
      tried: (hash) => hash === normalizedHash(applyTunables(KERNEL, known)),
      attempts: [attempt({ source: applyTunables(KERNEL, { BLOCK: '2048' }) })],
      inFlight: [{ hypothesis: 'that', sourceHash: normalizedHash(applyTunables(KERNEL, { NUM_WARPS: '8' })) }],
    })
    const sources = settingsAround(KERNEL, 'idea', asked).map(({ values }) => applyTunables(KERNEL, values))
    expect(sources).toHaveLength(5 * 3 - 1 - 3)
    expect(new Set(sources.map(normalizedHash)).size).toBe(sources.length)
    expect(sources).not.toContain(KERNEL)
    for (const values of [known, { BLOCK: '2048' }, { NUM_WARPS: '8' }]) expect(sources).not.toContain(applyTunables(KERNEL, values))
  })

  it.each([
    ['nothing is marked', 'def kernel_fn(x):\n    return x\n', 12],
    ['sweeps are switched off', KERNEL, 0],
  ])('are none where %s', (_, source, sweep) => {
    expect(settingsAround(source, 'idea', request({ sweep }))).toEqual([])
  })
})

describe('heats', () => {
  it('halve the field until one is left, and 60 settings take about as many visits as two rounds of all', () => {
    const all: Entrant[] = Array.from({ length: 60 }, () => ({ quick: null }))
    const sizes: number[] = []
    let visits = 0
    for (let heat = nextHeat(all); heat !== null; heat = nextHeat(all)) {
      sizes.push(heat.field.length)
      visits += heat.field.length * heat.rounds
      for (const entrant of heat.field) {
        const gain = 0.5 + all.indexOf(entrant) / 100
        entrant.quick = quick(gain, [...(entrant.quick?.ratios ?? []), ...Array<number>(heat.rounds).fill(gain)])
      }
    }
    expect(sizes).toEqual([60, 30, 15, 8, 4, 2])
    expect(visits).toBeLessThan(130)
    const furthest = Math.max(...all.map((entrant) => entrant.quick?.ratios.length ?? 0))
    expect(all.findLastIndex((entrant) => entrant.quick?.ratios.length === furthest)).toBe(59)
  })

  it('leave out what does not run', () => {
    const all: Entrant[] = [
      { quick: quick(0.9) },
      { quick: quick(null) },
      { quick: quick(1.1) },
      { quick: quick(1) },
      { quick: quick(null) },
    ]
    expect(nextHeat(all)).toEqual({ field: [all[2], all[3]], rounds: 2 })
    expect(nextHeat([{ quick: quick(1) }, { quick: quick(null) }])).toBe(null)
  })
})

const baselines: Baselines = {
  start: { us: 100, ci95: 1 },
  eager: { us: 150, ci95: 1 },
  vendor: null,
  compile: null,
  busy: false,
  shapes: [],
  roofline: { bound: 'memory', bytes: 1e6, flops: 1e6, limit_us: 20 },
}
const TUNED = 'N = 4  # tune: 2 4 8\ndef kernel_fn(x):\n    return x\n'
const at = (n: number): string => applyTunables(TUNED, { N: String(n) })

class Play {
  readonly run: Run
  state: State
  events: Event[] = []
  constructor(rules: Partial<Rules> = {}) {
    this.run = run(['rmsnorm'], rules)
    this.state = initialState(this.run)
    this.happen({ type: 'started', rules: this.state.run.rules })
    this.happen({ type: 'baselined', target: 'rmsnorm', check: check(), timing: timing([]), baselines, detail: '' })
  }
  happen(happened: Happened): Effect[] {
    const event: Event = { ...happened, seq: this.events.length, at: this.events.length * 1000, wall: '2026-01-01T00:00:00.000Z' }
    this.events.push(event)
    const next = step(this.state, event)
    this.state = next.state
    return next.effects
  }
  answers(source: string): Effect[] {
    const [{ id } = { id: 0 }] = this.state.proposing.asked
    const sweep = settingsAround(source, 'an idea', request({ sweep: 3 }))
    const idea: Proposal = { ...proposal('rmsnorm', source), hypothesis: 'an idea', disposable: false, sweep }
    return this.happen({ type: 'answered', id, target: 'rmsnorm', incumbent: sha(1), answer: { kind: 'proposal', proposal: idea } })
  }
  /** Quick timing says so of the settings N = 2 and 8, whichever comes first. */
  sweeps(written: Quick | null, two: Quick | null, eight: Quick | null): Effect[] {
    const { judging } = this.state
    if (judging.phase !== 'sweeping') throw new Error(judging.phase)
    const others = judging.proposal.sweep.map(({ values }) => (values.N === '2' ? two : eight))
    return this.happen({ type: 'swept', number: judging.number, quick: [written, ...others] })
  }
  fails(number: number): Effect[] {
    this.happen({ type: 'committed', number, commit: sha(100 + number) })
    this.happen({ type: 'checked', number, check: check('wrong', 'no') })
    return this.happen({ type: 'settled', number, tip: sha(1) })
  }
}

describe('a sweep in a run', () => {
  it('comes before the commit, under the experiment’s number, and the fastest that runs is the experiment', () => {
    const play = new Play()
    expect(play.answers(TUNED)).toContainEqual(expect.objectContaining({ type: 'sweep', number: 1, budgetMs: 30_000 }))
    expect(beingJudged(play.state)).toBe('rmsnorm')
    const effects = play.sweeps(quick(1), quick(null), quick(1.2))
    expect(effects[0]).toMatchObject({
      type: 'commit',
      number: 1,
      proposal: { source: at(8), written: TUNED, hypothesis: 'an idea (swept: N 4 -> 8)' },
    })
    expect(play.state.run).toMatchObject({ experiments: 1, counted: 0 })
  })

  it('counts as one experiment, whose memory holds every setting that was timed', () => {
    const play = new Play()
    play.answers(TUNED)
    play.sweeps(quick(1), quick(null), quick(1.2))
    play.fails(1)
    const [tried] = play.state.run.targets.rmsnorm?.attempts ?? []
    expect(play.state.run.counted).toBe(1)
    expect(tried?.points).toHaveLength(3)
    expect(tried?.points).toContainEqual({ change: 'N 4 -> 2', gain: null })
    expect(tried?.sourceHash).toBe(normalizedHash(TUNED)) // by which whoever wrote it knows it
    for (const source of [TUNED, at(2), at(8)]) expect(find(play.state.run.sources, normalizedHash(source))).toBe(1)
  })

  it('goes on as written when nothing was timed, and leaves the other settings untried', () => {
    const play = new Play()
    play.answers(TUNED)
    const [commit] = play.sweeps(null, null, null)
    expect(commit).toMatchObject({ type: 'commit', proposal: { source: TUNED, hypothesis: 'an idea' } })
    play.fails(1)
    expect(play.state.run.sources).toEqual([{ [normalizedHash(TUNED)]: 1 }])
  })

  it('believes who came further more than who was fast once', () => {
    const play = new Play()
    play.answers(TUNED)
    expect(play.sweeps(quick(1.02, [1.02, 1.02]), quick(1.3), quick(1.01, [1, 1.02]))[0]).toMatchObject({ proposal: { source: TUNED } })
  })

  it('never tries a setting that another idea has tried since it was written, or will be', () => {
    const play = new Play({ inFlight: 3 })
    play.answers('def kernel_fn(x):\n    return x\n')
    play.answers(TUNED)
    play.answers(at(2)) // the same kernel, written with another number
    play.fails(1)
    expect(play.state.judging).toMatchObject({ phase: 'sweeping', number: 2, proposal: { source: TUNED, sweep: [{ values: { N: '8' } }] } })
    play.sweeps(quick(1), null, quick(1.2))
    play.fails(2)
    expect(play.state.judging).toMatchObject({ phase: 'committing', number: 3, proposal: { source: at(2), sweep: [] } })
  })

  it('is cut by a pause and begun anew after it, and a result of the cut one changes nothing', () => {
    const play = new Play()
    const effects = play.answers(TUNED)
    expect(effects.filter(measures)).toHaveLength(1)
    expect(play.happen({ type: 'paused' })).toEqual([{ type: 'release' }])
    const again = play.happen({ type: 'resumed' })
    expect(again).toContainEqual(expect.objectContaining({ type: 'sweep', number: 1 }))
    play.happen({ type: 'swept', number: 7, quick: [] })
    expect(play.state.judging.phase).toBe('sweeping')
  })

  it('is taken up by a resumed run, and its samples are played back from the journal once they are in', () => {
    const play = new Play()
    play.answers(TUNED)
    const cut = step(replay(play.run, play.events), { type: 'started', rules: play.run.rules, seq: 9, at: 1e6, wall: '' })
    expect(cut.effects).toContainEqual(expect.objectContaining({ type: 'sweep', number: 1 }))
    play.sweeps(quick(1), quick(0.8), quick(1.2))
    const after = step(replay(play.run, play.events), { type: 'started', rules: play.run.rules, seq: 9, at: 1e6, wall: '' })
    expect(after.effects).toContainEqual(expect.objectContaining({ type: 'commit', number: 1 }))
    expect(after.effects.filter(({ type }) => type === 'sweep')).toEqual([])
  })

  it('is given up when the run crashes in it twice', () => {
    const play = new Play()
    play.answers(TUNED)
    expect(play.happen({ type: 'started', rules: play.run.rules })).toContainEqual(expect.objectContaining({ type: 'sweep' }))
    const effects = play.happen({ type: 'started', rules: play.run.rules })
    expect(effects).toContainEqual(
      expect.objectContaining({ type: 'commit', proposal: expect.objectContaining({ source: TUNED, sweep: [] }) }),
    )
    expect(effects.filter(({ type }) => type === 'sweep')).toEqual([])
  })

  it('may take as long as a verdict did', () => {
    const play = new Play()
    play.answers(TUNED)
    play.sweeps(quick(1), null, null)
    play.fails(1)
    const other = TUNED.replace('return x', 'return x + 0')
    expect(play.answers(other)).toContainEqual(expect.objectContaining({ type: 'sweep', number: 2, budgetMs: 10_000 }))
  })
})

it('compares the source as written with its settings, in their order', () => {
  const sweep = settingsAround(TUNED, 'idea', request({ sweep: 3 }))
  const idea = { ...proposal('rmsnorm', TUNED), sweep }
  expect(settingsOf(idea)).toEqual([TUNED, ...sweep.map(({ values }) => at(Number(values.N)))])
  expect(writtenHash({ ...idea, source: at(8), written: TUNED })).toBe(normalizedHash(TUNED))
})
