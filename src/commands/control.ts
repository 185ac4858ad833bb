/** pause, resume, stop, steer: a word to a run from any terminal. */
import { appendFileSync, existsSync, readFileSync } from 'node:fs'
import { finished } from '../core/machine.ts'
import { replay } from '../core/recover.ts'
import { type Order, sendOrder } from '../effects/control.ts'
import { cannotWrite } from '../effects/files.ts'
import { readJournal } from '../effects/journal.ts'
import { lockOwner } from '../effects/lock.ts'
import { UsageError } from '../errors.ts'
import type { Io } from '../io.ts'
import type { Options } from '../options.ts'
import { findRun, findStarted, type RunFolder } from '../run-folder.ts'
import { startOf } from '../session-start.ts'
import type { State } from '../types.ts'

/** The state is null while the run is still being planned. */
type Running = { folder: RunFolder; pid: string; state: State | null }

export async function pause(name: string | undefined, io: Io): Promise<number> {
  const running = await runningRun(name, io)
  const { folder, state } = running
  // One that waits for its device would go on by itself.
  const already = `${folder.name} is paused already; go on with: autokernel resume ${folder.name}`
  if (state?.paused) return give(io, running, { order: 'pause' }, already)
  refuseAtTheEnd(running, 'paused')
  const hold = state ? 'what is being measured is cut off and will be measured again' : 'it pauses as soon as its plan is made'
  return give(io, running, { order: 'pause' }, `pausing ${folder.name}: ${hold}; the device will be free and the clock stands still`)
}

export async function resume(name: string | undefined, io: Io): Promise<number> {
  const running = await runningRun(name, io)
  const { folder, state } = running
  // An order to pause may be on its way, so this one is given all the same.
  const words = state?.paused ? `${folder.name} goes on where it was paused` : `${folder.name} is not paused; it goes on`
  return give(io, running, { order: 'resume' }, words)
}

export async function stop(name: string | undefined, options: Options, io: Io): Promise<number> {
  const running = await runningRun(name, io)
  const { folder, pid, state } = running
  if (options.now) {
    const later = state ? `; go on later with: autokernel optimize --resume ${folder.name}` : '; it was still being planned'
    return give(io, running, { order: 'stop', now: true }, `stopping ${folder.name} (pid ${pid}) now: nothing more is measured${later}`)
  }
  refuseAtTheEnd(running, 'stopped')
  const number = state && 'experiment' in state.judging ? `experiment ${state.judging.experiment.number}` : 'what is in hand'
  const first = state?.paused ? 'it goes on to finish' : 'it finishes'
  return give(
    io,
    running,
    { order: 'stop', now: false },
    `stopping ${folder.name}: ${first} ${number}, verifies the model, writes REPORT.md and ends`,
  )
}

export async function steer(text: string, options: Options, io: Io): Promise<number> {
  const line = text.replace(/\s+/g, ' ').trim()
  if (line === '') throw new UsageError('expected a line of advice, such as autokernel steer "try split-K"')
  const folder = findRun(io.cwd, options.run)
  const before = existsSync(folder.steer) ? readFileSync(folder.steer, 'utf8') : ''
  try {
    appendFileSync(folder.steer, `${before === '' || before.endsWith('\n') ? '' : '\n'}${line}\n`)
  } catch (error) {
    throw cannotWrite(folder.steer, error)
  }
  const running = lockOwner(folder.lock) !== null
  if (io.json) io.document({ run: folder.name, steer: line, running })
  else io.print(`${folder.name}: every idea asked for from now on is asked for with it${running ? '' : ', once the run is resumed'}`)
  return 0
}

async function runningRun(name: string | undefined, io: Io): Promise<Running> {
  const folder = findStarted(io.cwd, name)
  const pid = lockOwner(folder.lock)
  if (pid === null) throw new UsageError(`run ${folder.name} is not running; ${whatNow(folder)}`)
  if (!existsSync(folder.events)) return { folder, pid, state: null }
  const { header, events } = await readJournal(folder.events)
  return { folder, pid, state: replay(startOf(header, folder).run, events) }
}

function whatNow({ name, events, report, log }: RunFolder): string {
  if (existsSync(report)) return 'it is finished'
  return existsSync(events) ? `go on with it: autokernel optimize --resume ${name}` : `it ended while it was being planned; its log: ${log}`
}

/** After its last experiment a run verifies the model, for minutes; there is nothing to hold or to finish in that. */
function refuseAtTheEnd({ folder, state }: Running, what: string): void {
  if (state?.run.stop && finished(state))
    throw new UsageError(
      `run ${folder.name} is past its last experiment and cannot be ${what}; to end it at once: autokernel stop ${folder.name} --now`,
    )
}

function give(io: Io, running: Running, order: Order, words: string): number {
  const pid = sendOrder(running.folder, order) // by now perhaps another's
  return say(io, { ...running, pid }, words)
}

function say(io: Io, { folder, pid }: Running, words: string): number {
  if (io.json) io.document({ run: folder.name, pid: Number(pid), message: words })
  else io.print(words)
  return 0
}
