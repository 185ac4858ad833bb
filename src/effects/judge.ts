/** The judge as the daemon sees it: a warm Python program behind a pipe, one question at a time. */
import { z } from 'zod'
import { firstLine } from '../core/record.ts'
import { EnvironmentError, ToolError } from '../errors.ts'
import type { Evaluator } from '../ports.ts'
import {
  Check,
  Counters,
  type DeviceKind,
  Hello,
  JudgeReply,
  type ModelSpec,
  Sanitized,
  type Side,
  type Target,
  Timing,
  Verification,
} from '../schema.ts'
import { Killed, Served } from './served.ts'
import { dropFolder, scratchFolder } from './temporary.ts'

type Question = 'hello' | 'check' | 'time' | 'verify' | 'counters' | 'sanitize'

/** The judge ends a hung kernel by itself, in seconds; these are for a judge that hangs, say in a driver. */
const DEADLINES_MS: Record<Question, number> = {
  hello: 300_000,
  check: 900_000,
  time: 1_800_000,
  verify: 3_600_000,
  counters: 600_000,
  sanitize: 600_000,
}
const CLOSE_MS = 3_000
/** A killed process that is still there after this hangs in the driver. */
const GONE_MS = 30_000
/** Ours for the device's own failure; that something does not fit into its memory is none. */
const DEVICE =
  /\b(CUDA|HIP) (driver )?error: (?!out of memory)|\bCU(BLAS|DNN)_STATUS_|GPU is lost|off the bus|finds no such device|no \w+-capable device/i

export type JudgeOptions = {
  python: string
  script: string // bench/bench.py
  device: DeviceKind
  sandbox: 'auto' | 'require' | 'none'
  allowTf32: boolean
  log: string // its stderr
  /** Waits until the device is ours alone, and says how to give it back. */
  takeTurn?: (signal?: AbortSignal) => Promise<{ release: () => void }>
  deadlinesMs?: Partial<Record<Question, number>>
}

export type VerifyRequest = {
  model: ModelSpec
  optimized: string // the folder that holds optimized/
  only: string[] | null
  rounds: number
  nan_probe: boolean
  compile: boolean
}

export class Judge implements Evaluator {
  private readonly options: JudgeOptions
  private served: Served | null = null
  private gone: Promise<unknown> = Promise.resolve()
  private turn: Promise<unknown> = Promise.resolve()
  private asked = 0
  private answered = false // the device has worked

  constructor(options: JudgeOptions) {
    this.options = options
  }

  hello(signal?: AbortSignal): Promise<Hello> {
    return this.ask('hello', {}, Hello, signal)
  }

  check(target: Target, path: string, options: { quick: boolean; large: boolean }, signal?: AbortSignal): Promise<Check> {
    return this.ask('check', { ...this.about(target), path, ...options, seed: null }, Check, signal)
  }

  time(target: Target, sides: Side[], rounds: number, signal?: AbortSignal): Promise<Timing> {
    return this.ask('time', { ...this.about(target), sides, rounds }, Timing, signal)
  }

  counters(target: Target, path: string, signal?: AbortSignal): Promise<Counters> {
    return this.ask('counters', { ...this.about(target), path }, Counters, signal)
  }

  sanitize(target: Target, path: string, signal?: AbortSignal): Promise<Sanitized> {
    return this.ask('sanitize', { ...this.about(target), path }, Sanitized, signal)
  }

  verify(request: VerifyRequest, signal?: AbortSignal): Promise<Verification> {
    return this.ask('verify', request, Verification, signal)
  }

  /** Lets go of the device; a question that comes later starts a fresh one. */
  async close(): Promise<void> {
    const { served } = this
    this.served = null
    if (served) this.gone = served.close(CLOSE_MS)
    await within(GONE_MS, this.gone)
  }

  private about(target: Target): object {
    const { op, op_file, dtype, shapes } = target
    return { op, op_file, dtype, shapes, allow_tf32: this.options.allowTf32 }
  }

  /** Questions queue: two measurements at once would disturb each other. */
  private ask<T>(type: Question, body: object, schema: z.ZodType<T>, signal?: AbortSignal): Promise<T> {
    const once = (): Promise<T> => this.askNow(type, body, schema, signal)
    // Something killed it (the kernel's OOM killer, a person) and it said nothing: asked again, a fresh one usually answers.
    const answer = this.turn.then(once).catch((error) => (error instanceof Killed ? once() : Promise.reject(error)))
    this.turn = answer.catch(() => {}) // the caller hears of it
    return answer
  }

  private async askNow<T>(type: Question, body: object, schema: z.ZodType<T>, signal?: AbortSignal): Promise<T> {
    // A killed one may hold the device for some ms.
    if (!(await within(GONE_MS, this.gone))) throw new DeviceFailed(`the judge was killed ${GONE_MS / 1000} s ago and is still there`)
    signal?.throwIfAborted()
    const id = ++this.asked
    const device = await this.options.takeTurn?.(signal) // first: what a judge does to start would disturb whoever measures
    const cut = new Cut(this.options.deadlinesMs?.[type] ?? DEADLINES_MS[type], type, signal)
    let served: Served | null = null
    try {
      served = this.served?.alive ? this.served : this.start()
      this.served = served
      const line = await Promise.race([served.exchange(JSON.stringify({ id, type, ...body })), cut.happened])
      return this.read(line, id, type, schema)
    } catch (error) {
      if (served && !(error instanceof Declined)) this.discard(served)
      const deviceFailed = this.answered && error instanceof Error && !(error instanceof Declined) && DEVICE.test(error.message)
      throw deviceFailed ? new DeviceFailed(deviceLine(error.message), { cause: error }) : error
    } finally {
      cut.clear()
      device?.release()
    }
  }

  private read<T>(line: string, id: number, type: Question, schema: z.ZodType<T>): T {
    const reply = JudgeReply.safeParse(json(line))
    if (!reply.success || reply.data.id !== id) throw this.unreadable(type, `expected the reply to ${id}, found ${line.slice(0, 200)}`)
    if (!reply.data.ok && /No space left on device|Disk quota exceeded/.test(reply.data.error))
      throw new EnvironmentError(`the judge found the disk full (${firstLine(reply.data.error)}); free some space and resume`)
    if (!reply.data.ok && DEVICE.test(reply.data.error)) throw new DeviceFailed(`${reply.data.error}\nlog: ${this.options.log}`)
    if (!reply.data.ok) throw new Declined(`the judge could not answer '${type}': ${reply.data.error}\nlog: ${this.options.log}`)
    const result = schema.safeParse(reply.data.result)
    if (!result.success) throw this.unreadable(type, z.prettifyError(result.error))
    this.answered = true
    return result.data
  }

  private unreadable(type: Question, why: string): ToolError {
    return new ToolError(`${this.options.script} answered '${type}' with something we cannot read; log: ${this.options.log}\n${why}`)
  }

  private start(): Served {
    const { python, script, device, sandbox, log } = this.options
    const scratch = scratchFolder('judge') // ours, since a judge that is cut off cannot remove what it has made
    const served = new Served(python, [script, '--serve', '--device', device, '--sandbox', sandbox], log, { AUTOKERNEL_SCRATCH: scratch })
    void served.ended.then(() => dropFolder(scratch))
    return served
  }

  /** Whatever it was doing is cut off; the next question starts a fresh one. */
  private discard(served: Served): void {
    served.kill()
    this.served = null
    this.gone = served.ended
  }
}

/** The judge works, but says that it cannot do this: a reference that does not fit into memory, say. */
export class Declined extends ToolError {}

/** The device, not what it was to run. A fresh judge may find that it works again. */
export class DeviceFailed extends ToolError {}

const deviceLine = (words: string): string => words.split('\n').find((line) => DEVICE.test(line)) ?? words

/** Whether it is settled by then. */
async function within(ms: number, work: Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), ms)
  })
  const done = await Promise.race([work.then(() => true), late])
  clearTimeout(timer)
  return done
}

/** Rejects when the deadline passes or the caller aborts. */
class Cut {
  readonly happened: Promise<never>
  readonly clear: () => void

  constructor(ms: number, type: Question, signal?: AbortSignal) {
    let clear = (): void => {}
    this.happened = new Promise((_, reject) => {
      const timer = setTimeout(() => reject(new DeviceFailed(`the judge did not answer '${type}' within ${ms / 1000} s and was ended`)), ms)
      const onAbort = (): void => reject(signal?.reason)
      signal?.addEventListener('abort', onAbort, { once: true })
      clear = () => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', onAbort)
      }
    })
    this.clear = clear
  }
}

function json(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch {
    return null
  }
}
