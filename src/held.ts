/** A run taken by this process: its lock, control channel, log and news; all let go of at the end, however it comes. */
import { type Control, openControl, takeRun } from './effects/control.ts'
import type { Address } from './effects/notify.ts'
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
  stopNow: () => void // told as soon as somebody asks, also while the run is still being planned
}

export async function holdRun<T>({ folder, io: plain, notify, stopNow }: Holding, work: (held: Held) => Promise<T>): Promise<T> {
  makeRunFolder(plain.cwd, folder.name)
  const opened = new Opened()
  opened.add(takeRun(folder), (lock) => lock.release()) // from here on the log and the orders are ours
  const io = withLog(plain, folder.log)
  const news = new News(notify, folder, io)
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
    const lastWords = (error: Error): void => io.failed(machineError(error))
    process.prependListener('uncaughtException', lastWords)
    opened.add(process, (all) => all.off('uncaughtException', lastWords))
    return await work({ folder, io, control, news, opened })
  } catch (thrown) {
    const error = machineError(thrown)
    io.failed(error)
    await news.tell('error', `${folder.name}: ${messageOf(error)}`)
    throw error
  } finally {
    await opened.close()
  }
}
