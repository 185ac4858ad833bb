/** The run's log: whatever the daemon says, with the time, also when nobody is at the terminal. */
import { appendFileSync } from 'node:fs'
import { stripVTControlCharacters } from 'node:util'
import type { Io } from './io.ts'

/** Set for a process that was started in the background; its own output goes into the log already. */
export const DETACHED = 'AUTOKERNEL_DETACHED'

export type LoggedIo = Io & {
  /** Into the log only. */
  note: (text: string) => void
  /** Into the log, where the end of a foreground run would otherwise be missing. */
  failed: (error: unknown) => void
}

export function withLog(io: Io, file: string): LoggedIo {
  const note = (text: string): void => {
    const time = `${new Date().toISOString().slice(0, 19)}Z`
    const lines = stripVTControlCharacters(text)
      .split('\n')
      .map((line) => `${time} ${line}\n`)
    try {
      appendFileSync(file, lines.join(''))
    } catch {
      // The log is for people. On a full disk the journal ends the run, and says why.
    }
  }
  if (io.detached) return { ...io, note, failed: () => {}, say: note, print: note }
  const both = (write: (text: string) => void) => (text: string) => {
    note(text)
    write(text)
  }
  return { ...io, note, failed: (error) => note(`ended: ${messageOf(error)}`), say: both(io.say), print: both(io.print) }
}

export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
