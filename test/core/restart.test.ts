/** What a run makes of a restart: after a crash, after a stop in order, and in the middle of anything. */
import { describe, expect, it } from 'vitest'
import { finished, initialState, step } from '../../src/core/machine.ts'
import { past, replay } from '../../src/core/recover.ts'
import { rowsOf } from '../../src/core/rows.ts'
import type { Answer, Baselines, Effect, Event, Happened, Rules, Run } from '../../src/types.ts'
import { check, proposal, round, run, sha, timing } from '../support/make.ts'

const us = (n: number) => ({ us: n, ci95: 1 })
const roofline = { bound: 'memory' as const, bytes: 1e6, flops: 1e6, limit_us: 20 }
const baselines: Baselines = { start: us(100), eager: us(150), vendor: us(120), compile: null, busy: false, roofline, shapes: [] }

/** A journal as it grows, and what the machine asks for at its end. */
class Story {
  readonly run: Run
  readonly events: Event[] = []
  state
  effects: Effect[] = []
  constructor(rules: Partial<Rules> = {}) {
    this.run = run(['rmsnorm'], rules)
    this.state = initialState(this.run)
    this.happen({ type: 'started', rules: this.run.rules })
    this.happen({ type: 'baselined', target: 'rmsnorm', check: check(), timing: timing([]), baselines, detail: '' })
  }
  happen(happened: Happened): Effect[] {
    const seq = this.events.length
    const event: Event = { ...happened, seq, at: seq * 1000, wall: '2026-01-01T00:00:00.000Z' }
    this.events.push(event)
    const next = step(this.state, event)
    this.state = next.state
    this.effects = next.effects
    return next.effects
  }
  answer(source: string): Effect[] {
    const id = this.state.proposing.asked[0]?.id ?? 0
    return this.happen({
      type: 'answered',
      id,
      target: 'rmsnorm',
      incumbent: sha(1),
      answer: { kind: 'proposal', proposal: proposal('rmsnorm', source) },
    })
  }
  /** Power off and on: nothing but the journal is left. */
  crash(rules = this.run.rules): Effect[] {
    this.state = replay(this.run, this.events)
    return this.happen({ type: 'started', rules })
  }
  measuring(number: number): this {
    this.answer(`idea ${number}`)
    this.happen({ type: 'committed', number, commit: sha(100 + number) })
    return this
  }
}

const kinds = (effects: Effect[]): string[] => effects.map(({ type }) => type).sort()

describe('a run that goes down and comes back', () => {
  it('measures what a crash cut off again, under the same number; cut off a second time, it is recorded as interrupted', () => {
    const story = new Story({ maxExperiments: 2 }).measuring(1)
    const again = story.crash().find(({ type }) => type === 'check')
    expect(again).toMatchObject({ experiment: { number: 1, commit: sha(101), cuts: 1 } })
    story.happen({ type: 'checked', number: 1, check: check() })
    const settle = story.crash().find(({ type }) => type === 'settle')
    expect(settle).toMatchObject({ experiment: { number: 1, cuts: 2 }, row: { status: 'interrupted', experiment: 1 }, message: null })
  })

  it('counts an interrupted experiment toward neither budget nor streak', () => {
    const story = new Story({ maxExperiments: 1, maxDiscards: 1 }).measuring(1)
    story.crash()
    story.crash()
    story.happen({ type: 'settled', number: 1, tip: sha(1) })
    expect(finished(story.state)).toBe(false)
    expect(story.state.run).toMatchObject({ counted: 1, interrupted: 1, targets: { rmsnorm: { discardsInARow: 0, left: null } } })
    story.measuring(2)
    story.happen({ type: 'checked', number: 2, check: check('wrong') })
    story.happen({ type: 'settled', number: 2, tip: sha(1) })
    expect(story.state.run.stop).toMatchObject({ reason: 'max-experiments' })
  })

  it.each<[string, (story: Story) => void]>([
    ['a stop in order', (story) => story.happen({ type: 'stop', reason: 'stopped', detail: 'it was interrupted', now: true })],
    ['a pause', (story) => story.happen({ type: 'paused' })],
  ])('does not count %s as a cut', (_, before) => {
    const story = new Story().measuring(1)
    for (let i = 0; i < 4; i++) {
      before(story)
      expect(story.crash().find(({ type }) => type === 'check')).toMatchObject({ experiment: { number: 1, cuts: 0 } })
    }
  })

  it('asks for the rounds that are still wanting, not for the first one again', () => {
    const story = new Story().measuring(1)
    story.happen({ type: 'checked', number: 1, check: check() })
    const more = story.happen({ type: 'timed', number: 1, timing: timing([round({ incumbent: 100, candidate: 90 })]) })
    expect(story.crash().filter(({ type }) => type === 'time')).toMatchObject(
      more.map((effect) => ({ ...effect, experiment: { number: 1, cuts: 1 } })),
    )
  })

  it('loses no answer that was paid for, and none is asked for twice', () => {
    const story = new Story().measuring(1)
    const asked = story.state.proposing.asked
    story.answer('idea 2') // waits for its turn while the first is judged
    expect(story.state.proposing.ready).toHaveLength(1)
    expect(kinds(story.crash())).toEqual(['check'])
    expect(story.state.proposing.ready).toMatchObject([{ source: 'idea 2' }])
    expect(asked).toHaveLength(1)
  })

  it('goes straight to its end when the time was up before it went down', () => {
    const story = new Story({ runMs: 2000 }).measuring(1)
    story.happen({ type: 'deadline' })
    expect(story.crash()).toEqual([])
    expect(finished(story.state)).toBe(true)
    expect(story.state.run.stop).toMatchObject({ reason: 'hours' })
  })

  it.each<[string, number, (story: Story) => void, string[]]>([
    ['that is reached, whoever had been asked', 1, () => {}, []],
    ['that is reached, when an idea waits to be judged', 1, (story) => story.answer('idea 2'), []],
    ['with room for one of those who had been asked', 2, () => {}, ['ask']],
    ['with room for what waits alone', 2, (story) => story.answer('idea 2'), ['commit']],
  ])('keeps to a --max-experiments of its own %s', (_, maxExperiments, meanwhile, expected) => {
    const story = new Story({ inFlight: 12 }).measuring(1)
    meanwhile(story)
    story.happen({ type: 'checked', number: 1, check: check('wrong') })
    story.happen({ type: 'stop', reason: 'stopped', detail: 'autokernel stop asked for the end', now: false })
    story.happen({ type: 'settled', number: 1, tip: sha(1) })
    expect(finished(story.state)).toBe(true)
    expect(kinds(story.happen({ type: 'started', rules: { ...story.run.rules, maxExperiments, agents: 'search', inFlight: 1 } }))).toEqual(
      expected,
    )
    const reached = { reason: 'max-experiments', detail: '--max-experiments is reached' }
    expect(story.state.run.stop).toEqual(expected.length === 0 ? { ...reached, now: false } : null)
  })

  it.each<[string, Partial<Rules>, number]>([
    ['--max-cost that what was paid already reaches', { maxCostUsd: 2 }, 0],
    ['--max-tokens that what was used already reaches', { maxTokens: 2000 }, 0],
    ['--max-turns that the answers so far reach', { maxTurns: 1 }, 0],
    ['--max-cost with room for one more answer as dear as the dearest', { maxCostUsd: 4 }, 1],
    ['--max-tokens with room for both', { maxTokens: 5000 }, 2],
    ['--max-cost that is reached, of a run whose other agent is free', { maxCostUsd: 2, freeFallback: true }, 1],
  ])('sends no request that its own budget forbids: %s', (_, budget, expected) => {
    const story = new Story({ inFlight: 4 })
    const [first = { id: 0 }] = story.state.proposing.asked
    const dear: Answer = { kind: 'proposal', proposal: { ...proposal('rmsnorm', 'idea'), costUsd: 2, tokens: 2000, turns: 1 } }
    story.happen({ type: 'answered', id: first.id, target: 'rmsnorm', incumbent: sha(1), answer: dear })
    story.happen({ type: 'committed', number: 1, commit: sha(101) })
    expect(story.state.proposing.asked).toHaveLength(2)
    story.crash({ ...story.run.rules, ...budget })
    expect(story.effects.filter(({ type }) => type === 'ask')).toHaveLength(expected)
    expect(story.state.proposing.asked).toHaveLength(expected)
  })

  it('keeps a repair that its budget forbids for a run that goes on with more', () => {
    const story = new Story({ maxTurns: 3 })
    const [first = { id: 0 }] = story.state.proposing.asked
    const idea: Answer = { kind: 'proposal', proposal: { ...proposal('rmsnorm', 'idea'), turns: 1, thread: { ask: first.id, repairs: 0 } } }
    story.happen({ type: 'answered', id: first.id, target: 'rmsnorm', incumbent: sha(1), answer: idea })
    story.happen({ type: 'committed', number: 1, commit: sha(101) })
    story.happen({ type: 'checked', number: 1, check: check('wrong') })
    story.happen({ type: 'settled', number: 1, tip: sha(1) })
    const wanted = story.state.proposing.asked.filter(({ repair }) => repair !== null)
    expect(wanted).toHaveLength(1)
    story.crash({ ...story.run.rules, maxTurns: 1 })
    expect(story.state).toMatchObject({ run: { stop: { reason: 'max-turns' } }, proposing: { asked: [], repairs: [wanted[0]?.repair] } })
    story.crash({ ...story.run.rules, maxTurns: 3 })
    expect(story.effects).toMatchObject([{ type: 'ask', repair: { experiment: 1 } }])
  })

  it('is the same wherever it goes down: every prefix of its journal leads to the same state and the same rows', () => {
    const story = new Story({ maxExperiments: 3 }).measuring(1)
    story.happen({ type: 'checked', number: 1, check: check('wrong') })
    story.answer('idea 1') // the same again, while a verdict is being written: its row follows that one
    story.happen({ type: 'settled', number: 1, tip: sha(1) })
    for (let length = 1; length <= story.events.length; length++) {
      const events = story.events.slice(0, length)
      const { state } = past(story.run, events)
      expect(replay(story.run, events)).toEqual(state)
      const rows = rowsOf(story.run, events)
      expect(rowsOf(story.run, story.events).slice(0, rows.length)).toEqual(rows)
    }
    expect(rowsOf(story.run, story.events).map(({ experiment, status }) => [experiment, status])).toEqual([
      [0, 'baseline'],
      [0, 'baseline'],
      [0, 'baseline'],
      [1, 'wrong'],
      [2, 'invalid'],
    ])
  })
})
