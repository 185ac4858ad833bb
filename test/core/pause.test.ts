import { describe, expect, it } from 'vitest'
import { finished } from '../../src/core/machine.ts'
import { check, sha } from '../support/make.ts'
import { kinds, Play } from '../support/play.ts'

describe('a pause', () => {
  it('lets go of the device, starts nothing that measures, and goes on with the same measurement', () => {
    const play = new Play(['rmsnorm'])
    play.begin()
    play.answer('a')
    play.happen({ type: 'committed', number: 1, commit: sha(101) })
    expect(kinds(play.happen({ type: 'paused' }))).toEqual(['release'])
    expect(play.state).toMatchObject({ paused: true, judging: { phase: 'checking' } })
    expect(play.happen({ type: 'resumed' })).toMatchObject([{ type: 'check', experiment: { number: 1, commit: sha(101) } }])
    play.judge(1, 110)
    play.happen({ type: 'settled', number: 1, tip: sha(1) })
    expect(play.state.run.targets.rmsnorm?.attempts).toMatchObject([{ experiment: 1, outcome: 'slower' }])
  })

  it('keeps the pairs that were timed before it', () => {
    const play = new Play(['rmsnorm'])
    play.begin()
    play.answer('a')
    play.happen({ type: 'committed', number: 1, commit: sha(101) })
    play.happen({ type: 'checked', number: 1, check: check() })
    play.timed(1, 98)
    const before = play.rounds()
    expect(before).toBeGreaterThan(0)
    play.happen({ type: 'paused' })
    expect(kinds(play.happen({ type: 'resumed' }))).toEqual(['time'])
    expect(play.rounds()).toBe(before)
  })

  it('takes what comes in meanwhile, from git and from an agent, and measures it only afterwards', () => {
    const play = new Play(['rmsnorm'])
    play.begin()
    play.answer('a')
    play.happen({ type: 'paused' })
    expect(kinds(play.happen({ type: 'committed', number: 1, commit: sha(101) }))).toEqual([])
    expect(kinds(play.answer('b'))).toEqual([])
    expect(play.state.proposing.ready).toMatchObject([{ source: 'b' }])
    expect(kinds(play.happen({ type: 'resumed' }))).toEqual(['check'])
  })

  it('lets a verdict that is in reach git and the ledger, and starts nothing after it', () => {
    const play = new Play(['rmsnorm'])
    play.begin()
    play.answer('a')
    expect(kinds(play.judge(1, 110))).toEqual(['settle'])
    play.answer('b')
    expect(kinds(play.happen({ type: 'paused' }))).toEqual(['release'])
    expect(kinds(play.happen({ type: 'settled', number: 1, tip: sha(1) }))).toEqual([])
    expect(play.state.run.counted).toBe(1)
    expect(kinds(play.happen({ type: 'resumed' }))).toEqual(expect.arrayContaining(['commit', 'ask']))
  })

  it('holds the baselines too', () => {
    const play = new Play(['rmsnorm'])
    play.happen({ type: 'started', rules: play.state.run.rules })
    expect(kinds(play.happen({ type: 'paused' }))).toEqual(['release'])
    expect(kinds(play.happen({ type: 'resumed' }))).toEqual(['baseline'])
  })

  it('once is enough, and going on without a pause changes nothing', () => {
    const play = new Play(['rmsnorm'])
    play.begin()
    const { state } = play
    expect(play.happen({ type: 'resumed' }, state.run.elapsedMs)).toEqual([])
    expect(play.state).toEqual(state)
    play.happen({ type: 'paused' })
    expect(play.happen({ type: 'paused' })).toEqual([])
  })

  it('is over when the run is resumed by another process', () => {
    const play = new Play(['rmsnorm'])
    play.begin()
    play.answer('a')
    play.happen({ type: 'committed', number: 1, commit: sha(101) })
    play.happen({ type: 'paused' })
    expect(kinds(play.happen({ type: 'started', rules: play.state.run.rules }))).toEqual(expect.arrayContaining(['check', 'ask']))
    expect(play.state.paused).toBe(false)
  })
})

describe('a stop', () => {
  it('finishes the experiment in hand and begins no other', () => {
    const play = new Play(['rmsnorm'])
    play.begin()
    play.answer('a')
    play.answer('b')
    expect(kinds(play.happen({ type: 'stop', reason: 'stopped', detail: 'asked', now: false }))).not.toContain('release')
    expect(finished(play.state)).toBe(false)
    play.judge(1, 110)
    expect(kinds(play.happen({ type: 'settled', number: 1, tip: sha(1) }))).toEqual([])
    expect(finished(play.state)).toBe(true)
    expect(play.state.run).toMatchObject({ counted: 1, stop: { reason: 'stopped' } })
  })

  it('asks agents that are writing to leave off', () => {
    const play = new Play(['rmsnorm'])
    play.begin()
    expect(play.happen({ type: 'stop', reason: 'stopped', detail: 'asked', now: false })).toEqual([{ type: 'abort', what: 'asking' }])
    expect(finished(play.state)).toBe(true)
  })

  it('of a paused run goes on for as long as the experiment in hand takes', () => {
    const play = new Play(['rmsnorm'])
    play.begin()
    play.answer('a')
    play.happen({ type: 'committed', number: 1, commit: sha(101) })
    play.happen({ type: 'paused' })
    expect(kinds(play.happen({ type: 'stop', reason: 'stopped', detail: 'asked', now: false }))).toContain('check')
    play.judge(1, 110)
    play.happen({ type: 'settled', number: 1, tip: sha(1) })
    expect(finished(play.state)).toBe(true)
  })

  it('at once cuts everything off; the same experiment is measured when the run is resumed', () => {
    const play = new Play(['rmsnorm'])
    play.begin()
    play.answer('a')
    play.happen({ type: 'committed', number: 1, commit: sha(101) })
    expect(play.happen({ type: 'stop', reason: 'stopped', detail: 'asked', now: true })).toEqual([{ type: 'abort', what: 'all' }])
    expect(finished(play.state)).toBe(true)
    expect(play.state.run.counted).toBe(0)
    const again = play.happen({ type: 'started', rules: play.state.run.rules })
    expect(again).toContainEqual(expect.objectContaining({ type: 'check', experiment: expect.objectContaining({ number: 1 }) }))
  })

  it('at once waits for a verdict that is on its way into git', () => {
    const play = new Play(['rmsnorm'])
    play.begin()
    play.answer('a')
    play.judge(1, 110)
    play.happen({ type: 'stop', reason: 'stopped', detail: 'asked', now: true })
    expect(finished(play.state)).toBe(false)
    play.happen({ type: 'settled', number: 1, tip: sha(1) })
    expect(finished(play.state)).toBe(true)
  })

  it('takes a pause for no news once the last experiment is over', () => {
    const play = new Play(['rmsnorm'])
    play.begin()
    play.happen({ type: 'stop', reason: 'stopped', detail: 'asked', now: false })
    expect(play.happen({ type: 'paused' })).toEqual([])
    expect(play.state.paused).toBe(false)
  })
})
