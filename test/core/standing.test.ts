import { expect, it } from 'vitest'
import { best, inHand, pace, passingLine } from '../../src/core/standing.ts'
import { check, run, sha, targetState } from '../support/make.ts'
import { baselines, Play } from '../support/play.ts'

const HOUR = 3_600_000

it('says what the judge has in its hands', () => {
  const play = new Play(['rmsnorm'])
  expect(inHand(play.state)).toBe('idle')
  play.happen({ type: 'started', rules: play.state.run.rules })
  expect(inHand(play.state)).toBe('rmsnorm: measuring its baselines')
  play.baselined('rmsnorm')
  expect(inHand(play.state)).toBe('waiting for an idea')
  play.answer('a')
  expect(inHand(play.state)).toBe('rmsnorm #1: committing')
  play.happen({ type: 'committed', number: 1, commit: sha(101) })
  expect(inHand(play.state)).toBe('rmsnorm #1: checking')
  play.happen({ type: 'checked', number: 1, check: check() })
  play.timed(1, 98)
  expect(inHand(play.state)).toBe('rmsnorm #1: timing (1 of at most 12 pairs)')
  play.happen({ type: 'paused' })
  expect(inHand(play.state)).toBe('paused')
  play.happen({ type: 'stop', reason: 'stopped', detail: 'asked', now: true })
  expect(inHand(play.state)).toBe('its last experiment is over; the whole model is verified, then reported')
})

it('gives the best so far with its interval', () => {
  const untouched = targetState('rmsnorm')
  expect(best(untouched)).toBe('not measured yet')
  const measured = { ...untouched, baselines, latency: baselines.start }
  expect(best(measured)).toBe('100.0 ±1.0 us, 20 % of peak')
  expect(best({ ...measured, keeps: 2, latency: { us: 80, ci95: 0.4 } })).toBe('80.0 ±0.4 us, 1.25x the start, 25 % of peak')
})

it.each([
  ['nothing known', {}, {}, 0, ''],
  ['an hour of eight', { runMs: 8 * HOUR }, { counted: 30 }, HOUR, '30/h, 7.0 h left'],
  ['money', { runMs: HOUR }, { counted: 1, costUsd: 0.123, turns: 4 }, HOUR / 2, '2/h, 0.12 USD, 30 min left'],
  [
    'a count, by the pace of late',
    { maxExperiments: 10 },
    { experiments: 4, pace: { answerMs: null, verdictMs: 5000, sweepMs: null } },
    0,
    '~30 s left',
  ],
  ['a count, before any verdict', { maxExperiments: 10 }, {}, 0, '10 experiments left'],
  [
    'the tighter of two',
    { runMs: HOUR, maxExperiments: 1000 },
    { pace: { answerMs: null, verdictMs: 60_000, sweepMs: null } },
    0,
    '60 min left',
  ],
  ['time that is over', { runMs: HOUR }, {}, 2 * HOUR, '0 s left'],
])('gives rate, cost and time left: %s', (_, rules, changed, at, text) => {
  expect(pace({ ...run(['rmsnorm'], rules), ...changed }, at)).toBe(text)
})

it('fits all of it into one line', () => {
  const play = new Play(['rmsnorm'], { runMs: HOUR })
  play.begin()
  play.answer('a')
  expect(passingLine(play.state, 60_000)).toBe('rmsnorm #1: committing | best 100.0 ±1.0 us, 20 % of peak | 0 done | 59 min left')
})
