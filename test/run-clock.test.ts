import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { RunClock } from '../src/run-clock.ts'

const HOUR = 3_600_000

// The wall clock and the monotonic one move apart here, as they do when the machine sleeps or somebody sets the time.
beforeEach(
  () => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance', 'Date'], now: Date.parse('2026-11-20T22:00:00Z') }),
)
afterEach(() => void vi.useRealTimers())

const started = (elapsedMs = 0, seq = 0): RunClock => new RunClock(elapsedMs, seq, performance.now())

it('goes on where the run stopped, and numbers what happens', () => {
  const clock = started(5000, 7)
  vi.advanceTimersByTime(2000)
  expect(clock.stamp({ type: 'woke' })).toEqual({ type: 'woke', seq: 7, at: 7000, wall: '2026-11-20T22:00:02.000Z' })
  expect(clock.stamp({ type: 'woke' }).seq).toBe(8)
})

it('counts the time from before the run was opened: profiling is part of the night', () => {
  const began = performance.now()
  vi.advanceTimersByTime(30_000)
  expect(new RunClock(0, 0, began).now()).toBe(30_000)
})

it.each([
  ['a night with the lid closed', 8 * HOUR],
  ['a clock that is set back', -3 * HOUR],
])('does not count %s', (_, jump) => {
  const clock = started()
  const ring = vi.fn()
  clock.alarm(HOUR, ring)
  vi.advanceTimersByTime(10_000)
  vi.setSystemTime(Date.now() + jump)
  expect(clock.now()).toBe(10_000)
  vi.advanceTimersByTime(HOUR - 10_001)
  expect(ring).not.toHaveBeenCalled()
  vi.advanceTimersByTime(1)
  expect(ring).toHaveBeenCalledTimes(1)
})

it('stands still while the run is paused, and its alarm with it', () => {
  const clock = started()
  const ring = vi.fn()
  clock.alarm(10_000, ring)
  vi.advanceTimersByTime(4000)
  clock.pause(true)
  clock.pause(true)
  vi.advanceTimersByTime(HOUR)
  expect([clock.now(), ring.mock.calls.length]).toEqual([4000, 0])
  clock.pause(false)
  vi.advanceTimersByTime(5999)
  expect([clock.now(), ring.mock.calls.length]).toEqual([9999, 0])
  vi.advanceTimersByTime(1)
  expect(ring).toHaveBeenCalledTimes(1)
  vi.advanceTimersByTime(HOUR)
  expect(ring).toHaveBeenCalledTimes(1)
})

it('rings at once for a run whose time was up already, and not at all once it is closed', () => {
  const late = vi.fn()
  started(2 * HOUR).alarm(HOUR, late)
  vi.advanceTimersByTime(1)
  expect(late).toHaveBeenCalledTimes(1)
  const closed = started()
  closed.alarm(1000, late)
  closed.close()
  vi.advanceTimersByTime(2000)
  expect(late).toHaveBeenCalledTimes(1)
})

it('rings after 60 days too, which is more than a timer can hold', () => {
  const clock = started()
  const ring = vi.fn()
  clock.alarm(60 * 24 * HOUR, ring)
  vi.advanceTimersByTime(59 * 24 * HOUR)
  expect(ring).not.toHaveBeenCalled()
  vi.advanceTimersByTime(24 * HOUR)
  expect(ring).toHaveBeenCalledTimes(1)
})
