/** One run in one user's folder: started, killed where one wants it, started again. */
import { spawn } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { packageRoot } from '../../src/package-root.ts'
import { IDEAS, MODEL, type Stage } from './stage.ts'

/** Who dies at the boundary: as the interposer's enum. `power`: everything, and what was not synced is lost. */
const MODES = { daemon: 0, power: 1, caller: 2 } as const
/** `at`: its number since the start, or since the journal had so many `events`; where those are fewer this time, the next one. */
export type Kill = { at: number; events: number | null; who: keyof typeof MODES; torn: boolean }

/** A call of a start: how many there were by then, since the start and since the journal had `events`; program, call and path. */
export type Boundary = { number: number; events: number; since: number; what: string }

export type Ended = { code: number | null; signal: NodeJS.Signals | null; output: string; died: string } // died: at which boundary, or of which signal

const LIMIT_MS = 60_000 // an undisturbed run takes two seconds

export const RUN = 'night'
export const DIST = join(packageRoot, 'dist', 'cli.js')

export class Scene {
  readonly folder: string
  readonly journal: string
  private readonly aside: string // what the interposer writes, and a home and locks of its own
  private readonly stage: Stage
  private readonly program: string
  private readonly locks: string
  private starts = 0

  /** `locks`: where the device's lock is; runs with the same take turns. */
  constructor(stage: Stage, program = DIST, locks: string | null = null) {
    this.stage = stage
    this.program = program
    this.folder = stage.newFolder()
    this.journal = join(this.folder, '.autokernel', 'runs', RUN, 'events.jsonl')
    this.aside = `${this.folder}-aside`
    mkdirSync(this.aside)
    this.locks = locks ?? join(this.aside, 'locks')
  }

  /** Starts or resumes the run, which is one and the same command. `during` may do something to it while it runs. */
  async start(kill: Kill | null, during: (pid: number) => void = () => {}): Promise<Ended> {
    const aside = (name: string) => join(this.aside, name)
    const number = ++this.starts // a git that outlived the last start goes on with that one's files
    const [state, log] = [aside(`state-${number}`), aside(`log-${number}`)]
    writeFileSync(state, Buffer.alloc(4096))
    const limits = ['--max-experiments', String(IDEAS), '--target-speedup', '99', '--peak', '99%', '--max-discards', '9']
    const child = spawn(
      process.execPath,
      [
        '--no-opt', // it costs more than it gives in the second or two that a start has
        this.program,
        ...['optimize', '--model', MODEL, '--run', RUN, '--agent', 'replay:tape', '--device', 'cpu', '--sandbox', 'none'],
        ...['--python', this.stage.python, ...limits],
      ],
      {
        cwd: this.folder,
        stdio: ['ignore', 'pipe', 'pipe'],
        env: {
          PATH: process.env.PATH,
          HOME: this.aside,
          TMPDIR: this.aside, // who is killed outright leaves temporary folders behind
          AUTOKERNEL_LOCKS: this.locks,
          LD_PRELOAD: this.stage.interposer,
          KILL_ROOT: this.folder,
          KILL_JOURNAL: this.journal,
          KILL_STATE: state,
          KILL_LOG: log,
          ...(kill && { KILL_AT: String(kill.at), KILL_MODE: String(MODES[kill.who]), KILL_TORN: kill.torn ? '1' : '0' }),
          ...(kill && kill.events !== null && { KILL_EVENTS: String(kill.events) }),
        },
      },
    )
    const hung = setTimeout(() => {
      output += `\nhung: ${LIMIT_MS} ms are over`
      child.kill('SIGKILL')
    }, LIMIT_MS)
    let output = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        output += chunk
      })
    }
    if (child.pid !== undefined) during(child.pid)
    const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve) =>
      child.once('close', (...how) => resolve(how)),
    )
    clearTimeout(hung)
    return { code, signal, output, died: kill ? (this.log().find((boundary) => reached(boundary, kill))?.what ?? '') : (signal ?? '') }
  }

  /** Every boundary of the last start, in order. */
  log(): Boundary[] {
    const lines = readFileSync(join(this.aside, `log-${this.starts}`), 'utf8')
      .split('\n')
      .filter(Boolean)
    const boundaries = lines.map((line): Boundary => {
      const [number, events, since, ...what] = line.split('\t')
      return {
        number: Number(number),
        events: Number(events),
        since: Number(since),
        what: what.join('\t').replaceAll(`${this.folder}/`, ''),
      }
    })
    return boundaries.sort((a, b) => a.number - b.number)
  }

  remove(): void {
    for (const folder of [this.folder, this.aside]) rmSync(folder, { recursive: true, force: true })
  }
}

const reached = (boundary: Boundary, { at, events }: Kill): boolean =>
  events === null ? boundary.number === at : boundary.events > events || (boundary.events === events && boundary.since >= at)
