/** What REPORT.md says of money and of the device's time. */
import { expect, it } from 'vitest'
import { initialState, step } from '../../src/core/machine.ts'
import { type Ending, reportText } from '../../src/core/report.ts'
import type { Verification } from '../../src/schema.ts'
import type { Baselines, Happened, Run } from '../../src/types.ts'
import { check, run, timing } from '../support/make.ts'

const us = (value: number) => ({ us: value, ci95: 1 })
const roofline = { bound: 'memory' as const, bytes: 1e6, flops: 1e6, limit_us: 20 }
const baselines: Baselines = { start: us(100), eager: us(150), vendor: null, compile: null, busy: false, shapes: [], roofline }

/** A whole model that got `gain` times as fast, the same in every pair. */
function verified(gain: number): Verification {
  const pair = { order: ['original', 'optimized'], ms: { original: [gain, gain], optimized: [1, 1] }, disturbed: null }
  return { verdict: 'pass', detail: '', kernels: [], error: null, rounds: [pair, pair, pair], wall_s: 1 }
}

function report(changed: Partial<Run>, verification: Verification | null): string {
  const state = initialState({ ...run(['rmsnorm']), ...changed })
  const ending: Ending = {
    state,
    model: 'm.py',
    modelChange: null,
    branch: 'b',
    admitted: ['rmsnorm'],
    leftOut: [],
    verification,
    unverified: 'no',
    sandbox: 'none',
  }
  return reportText(ending)
}

it('says what a percent gained has cost', () => {
  const text = report({ costUsd: 6, tokens: 1000, turns: 12 }, verified(1.5))
  expect(text).toContain('Cost: 6.00 USD, 1000 tokens in 12 answers of a model, 0.120 USD per percent gained')
})

it.each([
  ['nothing was gained', { costUsd: 6 }, verified(1)],
  ['nothing was spent', { costUsd: 0 }, verified(1.5)],
  ['nothing was verified', { costUsd: 6 }, null],
])('names no price of a percent where %s', (_, changed, verification) => {
  expect(report(changed, verification)).not.toContain('per percent')
})

it('says in what share of the time the device had nothing to measure', () => {
  expect(report({ elapsedMs: 8_000, idleMs: 1_000 }, null)).toContain('The device had nothing to measure in 12.5 % of that time')
})

it('counts as idle only what passes while nothing is judged, not what starting took', () => {
  let state = initialState(run(['rmsnorm']))
  let seq = 0
  const happen = (happened: Happened, at: number): void => {
    state = step(state, { ...happened, seq: seq++, at, wall: '' }).state
  }
  happen({ type: 'started', rules: state.run.rules }, 5_000)
  happen({ type: 'baselined', target: 'rmsnorm', check: check(), timing: timing([]), baselines, detail: '' }, 9_000)
  expect(state.run.idleMs).toBe(0)
  happen({ type: 'paused' }, 10_000) // a second of waiting for an idea
  expect(state.run.idleMs).toBe(1_000)
})
