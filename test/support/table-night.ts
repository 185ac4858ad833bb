/** A run of the real program whose judge answers from a table, for tests of the daemon: seconds instead of minutes. */
import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { vi } from 'vitest'
import { packageRoot } from '../../src/package-root.ts'
import { type Outcome, World } from './world.ts'

const TABLE = join(packageRoot, 'test', 'control', 'table_python.py')
const PATIENCE = { timeout: 20_000, interval: 50 }

export type Running = { child: ChildProcess; ended: Promise<Outcome & { signal: string | null }> }

/** A process that has ended may stay as a zombie where nobody waits for orphans. */
export const lives = (pid: number): boolean => {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}

export class Night {
  readonly world: World
  readonly python: string
  readonly paceFile: string
  private readonly tools = mkdtempSync(join(tmpdir(), 'autokernel-table-'))
  readonly name: string

  constructor(name = 'night', pace = 0, parent = tmpdir()) {
    this.name = name
    this.world = World.within(parent, 'models/tiny_rmsnorm.py')
    this.python = join(this.tools, 'python')
    this.paceFile = join(this.tools, 'pace')
    this.pace(pace)
    // Asked for its version with -c, it has a torch.
    const table = `*/bench.py|*/profile_model.py) exec ${python3()} ${TABLE} ${this.paceFile} "$@" ;;`
    writeFileSync(this.python, `#!/bin/sh\ncase "$1" in ${table} esac\necho '{"version": [3, 11], "torch": "2.13.0"}'\n`)
    chmodSync(this.python, 0o755)
  }

  /** Nothing is measured, so it need not take turns with whoever really measures here; and who is killed outright leaves temporary folders behind. */
  private get env(): Record<string, string> {
    return { AUTOKERNEL_LOCKS: join(this.tools, 'locks'), TMPDIR: this.tools }
  }

  /** Seconds that the judge takes for each question from now on. */
  pace(seconds: number): void {
    writeFileSync(this.paceFile, String(seconds))
  }

  get root(): string {
    return join(this.world.folder, '.autokernel', 'runs', this.name)
  }

  /** The arguments of a new run. */
  fresh(...more: string[]): string[] {
    const which = ['--model', 'tiny_rmsnorm.py', '--run', this.name, '--agent', 'search', '--device', 'cpu', '--python', this.python]
    return ['optimize', ...which, ...more]
  }

  again(...more: string[]): string[] {
    return ['optimize', '--resume', this.name, '--python', this.python, ...more]
  }

  async say(...args: string[]): Promise<Outcome> {
    const done = await this.start(args).ended
    return { ...done, stdout: done.stdout.trimEnd(), stderr: done.stderr.trimEnd() }
  }

  /** Starts the program, or another in front of it, and does not wait for its end. */
  start(args: string[], { front = [], env = {} }: { front?: string[]; env?: Record<string, string> } = {}): Running {
    const [program = '', ...rest] = [...front, join(packageRoot, 'autokernel'), ...args]
    return this.run(program, rest, env)
  }

  /** Any program, in the user's folder. */
  run(program: string, args: string[], env: Record<string, string> = {}): Running {
    const child = spawn(program, args, { cwd: this.world.folder, stdio: 'pipe', env: { ...process.env, ...this.env, ...env } })
    let stdout = ''
    let stderr = ''
    child.stdout.setEncoding('utf8').on('data', (text) => (stdout += text))
    child.stderr.setEncoding('utf8').on('data', (text) => (stderr += text))
    const ended = new Promise<Outcome & { signal: string | null }>((resolve) =>
      child.once('close', (code, signal) => resolve({ code: code ?? -1, signal, stdout, stderr })),
    )
    return { child, ended }
  }

  read(file: string): string {
    const path = join(this.root, file)
    return existsSync(path) ? readFileSync(path, 'utf8') : ''
  }

  /** Whole lines of the journal after its header. */
  events(): { type: string; number?: number }[] {
    return this.read('events.jsonl')
      .split('\n')
      .slice(1, -1)
      .map((line) => JSON.parse(line))
  }

  settled(): number {
    return this.events().filter(({ type }) => type === 'settled').length
  }

  /** Makes the judge slow, and resolves when it has something in its hands since the last verdict. */
  async stuck(): Promise<void> {
    this.pace(30)
    await this.until(() => {
      const types = this.events().map(({ type }) => type)
      return types.slice(types.lastIndexOf('settled') + 1).includes('answered')
    })
  }

  until(what: () => boolean): Promise<void> {
    return vi.waitFor(() => {
      if (!what()) throw new Error(`not yet; the log ends:\n${this.read('log.txt').split('\n').slice(-8).join('\n')}`)
    }, PATIENCE)
  }

  /** Judges of this run that are there now. */
  judges(): number[] {
    return readdirSync('/proc')
      .filter((pid) => /^\d+$/.test(pid) && commandLine(pid).includes(`${this.paceFile}\0`))
      .map(Number)
  }

  /** Ends the run's daemon too, where a test has failed before it could. */
  remove(): void {
    const daemon = Number(this.read('lock'))
    if (daemon > 0 && commandLine(String(daemon)).includes(`\0${this.python}`)) process.kill(daemon, 'SIGKILL')
    this.world.remove()
    rmSync(this.tools, { recursive: true, force: true })
  }
}

/** Of the system where there is one, since any user may run that. */
const python3 = (): string => (existsSync('/usr/bin/python3') ? '/usr/bin/python3' : 'python3')

function commandLine(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8')
  } catch {
    return '' // ended meanwhile
  }
}
