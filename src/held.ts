/** A run taken by this process: its lock, control channel, log and news; all let go of at the end, however it comes. */
import { existsSync } from 'node:fs'
import { firstLine } from './core/record.ts'
import { type Control, openControl, takeRun } from './effects/control.ts'
import type { Address } from './effects/notify.ts'
import { EnvironmentError, UncaughtError } from './errors.ts'
import type { Io } from './io.ts'
import { type LoggedIo, messageOf, withLog } from './log.ts'
import { machineError } from './machine-error.ts'
import { News } from './news.ts'
import { Opened } from './opened.ts'
import { makeRunFolder, type RunFolder } from './run-folder.ts'

export type Held = { folder: RunFolder; io: LoggedIo; control: Control; news: News; opened: Opened }

export type Holding = {
  folder: RunFolder
  io: Io
  notify: Address | null
  interrupted: AbortSignal // then nobody waits for news to be delivered
  stopNow: () => void // told as soon as somebody asks, also while the run is still being planned
}

export async function holdRun<T>(
  { folder, io: plain, notify, interrupted, stopNow }: Holding,
  work: (held: Held) => Promise<T>,
): Promise<T> {
  makeRunFolder(plain.cwd, folder.name)
  const opened = new Opened()
  opened.add(takeRun(folder), (lock) => lock.release()) // from here on the log and the orders are ours
  const io = withLog(plain, folder.log)
  const news = new News(notify, folder, io, interrupted)
  let broken = false
  let failUncaught = (_: unknown): void => {}
  const uncaught = new Promise<never>((_, reject) => {
    failUncaught = reject
  })
  uncaught.catch(() => {}) // whoever works or closes just then hears of it
  try {
    opened.add(news, () => news.alive(false))
    const control = opened.add(
      openControl(folder.control, (order) => {
        if (order.order !== 'stop' || !order.now) return false
        stopNow()
        return true
      }),
      (channel) => channel.close(),
    )
    const end = (error: unknown): void => {
      broken = true
      io.note(`nobody caught: ${error instanceof Error ? error.stack : String(error)}`)
      failUncaught(uncaughtError(folder, error))
    }
    process.on('uncaughtException', end)
    opened.add(process, (all) => all.off('uncaughtException', end))
    return await Promise.race([work({ folder, io, control, news, opened }), uncaught])
  } catch (thrown) {
    const error = folderGone(folder) ?? machineError(thrown)
    io.failed(error)
    await news.tell('error', `${folder.name}: ${messageOf(error)}`)
    throw error
  } finally {
    // After an error that nobody caught nothing may be relied on: the end of the process, right after this, lets go of it all.
    if (!broken) await Promise.race([opened.close(), uncaught]) // what is closed may wait for what just failed
  }
}

/** Whatever fails where somebody removed the run's folder fails because of that. */
function folderGone({ root }: Pick<RunFolder, 'root'>): EnvironmentError | null {
  return existsSync(root) ? null : new EnvironmentError(`${root}: expected the run's folder, found none; put it back and resume`)
}

function uncaughtError({ name, root, events, log }: RunFolder, thrown: unknown): unknown {
  const known = folderGone({ root }) ?? machineError(thrown)
  if (known !== thrown) return known
  const saved = existsSync(events) ? `it is saved, go on with: autokernel optimize --resume ${name}` : 'it was still being planned'
  return new UncaughtError(`${name} met an error that nobody expected: ${firstLine(messageOf(thrown))}; ${saved}; log: ${log}`)
}
