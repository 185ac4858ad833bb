/** What a call costs. */
import { expect, it } from 'vitest'
import { costOf, priceFor, tokensOf } from '../../src/core/prices.ts'

const USAGE = { input: 1_000_000, cacheWrite: 1_000_000, cacheRead: 1_000_000, output: 1_000_000 }

it.each([
  ['claude-opus-5-5', 4 + 8 + 0.2 + 20],
  ['claude-haiku-4-5', 1 + 2 + 0.1 + 5],
  ['gpt-6.1-sol', 2 + 2.5 + 0.1 + 10],
])('bills %s for fresh, written, read and output tokens at their own rates', (model, usd) => {
  expect(costOf(USAGE, priceFor(model) ?? { input: 0, cacheWrite: 0, cacheRead: 0, output: 0 })).toBeCloseTo(usd, 9)
})

it.each(['claude-haiku-4-5-20251001', 'gpt-5.2-2025-12-11'])('knows a dated id, %s, by its plain name', (model) => {
  expect(priceFor(model)).toEqual(priceFor(model.replace(/-(\d{8}|\d{4}-\d\d-\d\d)$/, '')))
  expect(priceFor(model)).not.toBeNull()
})

it.each(['llama-7-local', 'claude', 'constructor', ''])("has no price for '%s', so that a run with a limit can refuse", (model) => {
  expect(priceFor(model)).toBeNull()
})

it("lets the user's own table win", () => {
  const own = { input: 1, cacheWrite: 1, cacheRead: 1, output: 1 }
  expect(priceFor('claude-opus-5-5', { 'claude-opus-5-5': own })).toEqual(own)
  expect(priceFor('mine', { mine: own })).toEqual(own)
})

it('counts every kind of token', () => {
  expect(tokensOf({ input: 1, cacheWrite: 20, cacheRead: 300, output: 4000 })).toBe(4321)
})
