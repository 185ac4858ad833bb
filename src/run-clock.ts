/** The run's own time: goes on where it stopped, stands still while the run is down or paused, and rings when it is up. */
import type { Clock } from './ports.ts'
import type { Event, Happened } from './types.ts'

const LONGEST_TIMER_MS = 2 ** 31 - 1 // a longer one would ring at once

export class RunClock implements Clock {
  #before: number // ms of the run until it last began to go
  #since: number | null // of performance.now(), which stands still while the machine sleeps; null: paused
  #next: number
  #alarm: { at: number; ring: () => void; timer: NodeJS.Timeout | null } | null = null

  /** `began` is the moment, by performance.now(), from which this process's time counts. */
  constructor(elapsedMs: number, seq: number, began: number) {
    this.#before = elapsedMs
    this.#since = began
    this.#next = seq
  }

  stamp(happened: Happened): Event {
    return { ...happened, seq: this.#next++, at: this.now(), wall: new Date().toISOString() }
  }

  now(): number {
    return Math.round(this.#before + (this.#since === null ? 0 : performance.now() - this.#since))
  }

  pause(paused: boolean): void {
    if (paused === (this.#since === null)) return
    this.#before = this.now()
    this.#since = paused ? null : performance.now()
    this.#arm()
  }

  /** Calls once, when the run's time reaches `at`. */
  alarm(at: number, ring: () => void): void {
    this.#alarm = { at, ring, timer: null }
    this.#arm()
  }

  close(): void {
    if (this.#alarm?.timer) clearTimeout(this.#alarm.timer)
    this.#alarm = null
  }

  #arm(): void {
    const alarm = this.#alarm
    if (!alarm) return
    if (alarm.timer) clearTimeout(alarm.timer)
    const left = Math.max(0, alarm.at - this.now())
    alarm.timer = this.#since === null ? null : setTimeout(() => this.#due(left), Math.min(left, LONGEST_TIMER_MS))
  }

  #due(left: number): void {
    if (left > LONGEST_TIMER_MS) {
      this.#arm()
      return
    }
    const ring = this.#alarm?.ring
    this.#alarm = null
    ring?.()
  }
}
