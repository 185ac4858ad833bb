/** One Python program that answers a line with a line: started, spoken to, killed with all its children. */
import { closeSync, createWriteStream, fstatSync, openSync, readSync } from 'node:fs'
import { execa } from 'execa'
import { EnvironmentError, ToolError, UsageError } from '../errors.ts'
import { childEnv } from './child-env.ts'
import { readLines } from './lines.ts'
import { hasEnded, killAtExit, killTree } from './process-tree.ts'

const MAX_LINE = 64 * 2 ** 20
const LAST_WORDS = 4096

/** Ended by a signal that was not ours. */
export class Killed extends ToolError {}

export class Served {
  /** Settles when the program has ended, with the reason as an error that names the log. */
  readonly ended: Promise<Error>
  private readonly child
  private readonly log: string
  private readonly logStart: number
  private listener: ((line: string) => void) | null = null
  private flooded = false
  private stopped = false // by us

  constructor(command: string, args: string[], log: string, env: Record<string, string> = {}) {
    this.log = log
    const stderr = openSync(log, 'a')
    this.logStart = fstatSync(stderr).size
    // Own process group. A hung grandchild (a compiler, a kernel) keeps pipes open and the device busy, so a plain kill
    // of the child would leave us waiting for it.
    this.child = execa(command, args, {
      detached: true,
      cleanup: false,
      buffer: false,
      reject: false,
      stdio: ['pipe', 'pipe', createWriteStream(log, { fd: stderr, autoClose: false })], // its descriptor goes straight to the child
      env: { ...childEnv(), ...env },
      extendEnv: false,
    })
    closeSync(stderr)
    const { child } = this
    if (child.pid !== undefined) killAtExit(child.pid)
    child.stdin.on('error', () => {}) // it ended; `ended` says how
    readLines(
      child.stdout,
      MAX_LINE,
      (line) => this.listener?.(line),
      () => {
        this.flooded = true
        this.kill()
      },
    )
    // 'exit' and not execa's promise, which waits until every holder of the pipe has closed it.
    this.ended = new Promise<Error>((resolve) => {
      child.once('exit', (code, signal) => {
        if (child.pid !== undefined) killTree(child.pid) // what it left behind in its group
        resolve(this.explain(code, signal))
      })
      void child.then(({ cause }) => cause && resolve(new EnvironmentError(`${command}: cannot be started: ${String(cause)}`, { cause })))
    })
    void this.ended.then(() => child.pid !== undefined && hasEnded(child.pid))
  }

  /** Sends a line and resolves with the next line that comes back; rejects with the reason when the program ends first. */
  exchange(line: string): Promise<string> {
    const reply = new Promise<string>((resolve) => {
      this.listener = resolve
    })
    this.child.stdin.write(`${line}\n`)
    return Promise.race([
      reply,
      this.ended.then((error) => {
        throw error
      }),
    ])
  }

  get pid(): number | undefined {
    return this.child.pid
  }

  get alive(): boolean {
    return this.child.pid !== undefined && this.child.exitCode === null && this.child.signalCode === null
  }

  kill(): void {
    this.stopped = true
    if (this.child.pid !== undefined && this.alive) killTree(this.child.pid)
  }

  /** Lets it end by itself, as it does when stdin closes, but not for longer than `patienceMs`. */
  async close(patienceMs: number): Promise<void> {
    this.child.stdin.end()
    const timer = setTimeout(() => this.kill(), patienceMs)
    await this.ended
    clearTimeout(timer)
  }

  private explain(code: number | null, signal: string | null): Error {
    const words = this.lastWords()
    const last = words.at(-1) ?? ''
    if (code === 2 && last) return new UsageError(last)
    if (code === 3 && last) return new EnvironmentError(last)
    const how = this.flooded ? `sent a line of more than ${MAX_LINE} bytes` : `ended (${signal ?? `exit code ${code}`})`
    const Kind = signal !== null && !this.stopped ? Killed : ToolError
    return new Kind([`${this.child.spawnfile} ${how}; log: ${this.log}`, ...words].join('\n'))
  }

  private lastWords(): string[] {
    return this.tailOfLog()
      .toString('utf8')
      .split('\n')
      .filter((line) => line.trim() !== '')
      .slice(-6)
  }
  /** Nothing where it cannot be read (somebody removed it, no handles are left): whoever waits for the end must hear of it all the same. */
  private tailOfLog(): Buffer {
    try {
      const file = openSync(this.log, 'r')
      const { size } = fstatSync(file)
      const from = Math.max(this.logStart, size - LAST_WORDS)
      const bytes = Buffer.alloc(Math.max(0, size - from))
      readSync(file, bytes, 0, bytes.length, from)
      closeSync(file)
      return bytes
    } catch {
      return Buffer.alloc(0)
    }
  }
}
