/** The device itself fails (Xid, off the bus, a hung driver): the run is paused, and goes on with the same measurement when it works again. */
import { setTimeout as sleep } from 'node:timers/promises'
import { finished } from './core/machine.ts'
import { firstLine } from './core/record.ts'
import { duration } from './core/report.ts'
import { measures } from './core/slots.ts'
import { DeviceFailed, type Judge } from './effects/judge.ts'
import { TemporaryError } from './errors.ts'
import type { Inbox } from './inbox.ts'
import type { Perform } from './ports.ts'
import type { Effect, Happened, State } from './types.ts'

const PATIENCE_MS = 30 * 60_000
const FIRST_MS = 5_000
const MOST_MS = 300_000
const TRIES = 3 // a candidate that takes the device down each time is at fault itself

/** Words that a candidate's process ends with when there is no device any more; it may also only say so. */
const LOST =
  /GPU is lost|fallen off the bus|no (CUDA|ROCm|HIP)-capable device|CUDA_ERROR_NO_DEVICE|hipErrorNoDevice|uncorrectable ECC|busy or unavailable/i

export type Watch = {
  judge: Pick<Judge, 'hello'>
  patienceMs: number | undefined
  say: (text: string) => void
  tell: (text: string) => void // whoever wants news of the run
}

/** What met a failed device is given up for a pause, `onFailed` is told why, and it is done again when the run goes on. */
export function pausing(perform: Perform, onFailed: (why: string) => void): Perform {
  const failures = new Map<string, number>()
  return async (effect, state) => {
    if (!measures(effect)) return perform(effect, state)
    const key = 'experiment' in effect ? effect.experiment.number : 'number' in effect ? effect.number : JSON.stringify(effect)
    const pause = (why: string): Happened | null => {
      const count = (failures.get(String(key)) ?? 0) + 1
      failures.set(String(key), count)
      if (count >= TRIES) return null
      onFailed(why)
      return { type: 'paused' }
    }
    try {
      const happened = await perform(effect, state)
      const lost = happened && lostIn(happened)
      return (lost && pause(lost)) || happened
    } catch (error) {
      if (!(error instanceof DeviceFailed)) throw error
      return pause(error.message) ?? givenUp(effect, `${TRIES} times the device failed over it: ${error.message}`)
    }
  }
}

function lostIn(happened: Happened): string | null {
  const said =
    happened.type === 'checked' && happened.check.verdict === 'crash'
      ? happened.check.detail
      : happened.type === 'timed' || happened.type === 'confirmed'
        ? (happened.timing?.failure?.detail ?? ('check' in happened ? (happened.check?.detail ?? '') : ''))
        : happened.type === 'baselined'
          ? happened.detail
          : ''
  return LOST.test(said) ? said : null
}

function givenUp(effect: Effect, detail: string): Happened {
  if ('experiment' in effect) return { type: 'declined', number: effect.experiment.number, detail }
  if (effect.type === 'sweep') return { type: 'swept', number: effect.number, quick: [] } // as written
  throw new TemporaryError(`${detail}; the run is saved`)
}

/** Looks after a run that is paused for its device, until it works or somebody else decides. */
export class Vigil {
  readonly #watch: Watch
  #why: string | null = null
  #looking: AbortController | null = null

  constructor(watch: Watch) {
    this.#watch = watch
  }

  failed(why: string): void {
    this.#why = why
  }

  follow(state: State, inbox: Inbox<Happened>): void {
    if (!state.paused || finished(state)) this.close()
    else if (this.#why !== null) {
      this.#looking = new AbortController()
      const { signal } = this.#looking
      const back = deviceBack(this.#watch, this.#why, signal).then(() => ({ type: 'resumed' }) as const)
      inbox.expect(back.catch((error: unknown) => (signal.aborted ? null : Promise.reject(error))))
      this.#why = null
    }
  }

  /** Somebody wants the run paused whatever becomes of the device. */
  hold(): void {
    if (this.#looking) this.#watch.say('it stays paused, whether the device works or not')
    this.#why = null
    this.close()
  }

  close(): void {
    this.#looking?.abort()
    this.#looking = null
  }
}

/** A question for a device that may fail meanwhile: asked again when it is back. */
export async function outlasting<T>(watch: Watch, signal: AbortSignal, ask: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await ask()
    } catch (error) {
      if (!(error instanceof DeviceFailed) || tries === TRIES) throw error
      await deviceBack(watch, error.message, signal)
    }
  }
}

/** Resolves when a fresh judge can use the device; each look comes later after the one before. */
export async function deviceBack(
  { judge, patienceMs = PATIENCE_MS, say, tell }: Watch,
  why: string,
  signal: AbortSignal,
  wait = (ms: number) => sleep(ms, undefined, { signal }),
): Promise<void> {
  const until = performance.now() + patienceMs
  say(`the device failed (${firstLine(why)}); looking whether it works`)
  for (let waitMs = FIRST_MS; ; waitMs = Math.min(2 * waitMs, MOST_MS)) {
    const trouble = await judge.hello(signal).then(() => null, failure)
    if (trouble === null) return say('the device works again')
    const leftMs = until - performance.now()
    if (leftMs <= 0)
      throw new TemporaryError(
        `the device failed and was not back within ${duration(patienceMs)} (${trouble}); the run is saved, resume it`,
      )
    if (waitMs === FIRST_MS) tell(`the device failed (${trouble}); the run is paused until it works`)
    const nextMs = Math.min(waitMs, leftMs)
    say(`the device does not work (${trouble}); looking again in ${Math.ceil(nextMs / 1000)} s`)
    await wait(nextMs)
  }
}

function failure(error: unknown): string {
  if (error instanceof DeviceFailed) return firstLine(error.message)
  throw error
}
