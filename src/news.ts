/** Who is told what of a run: its end, an error, and that nothing has come of it for a long time. */
import { type Address, notify } from './effects/notify.ts'
import { UsageError } from './errors.ts'
import type { LoggedIo } from './log.ts'
import { findProgram } from './program.ts'
import type { RunFolder } from './run-folder.ts'

const STALL_MS = 30 * 60_000

/** What --notify means; refused before anything begins, since nobody would miss news that never come. */
export function addressOf(text: string): Address {
  if (!/^[a-z]+:\/\//i.test(text)) return { program: findProgram(text, '--notify') }
  const url = URL.canParse(text) ? new URL(text) : null
  if (url?.protocol !== 'https:' && url?.protocol !== 'http:')
    throw new UsageError(`--notify: expected a URL such as https://example.org/hook or a program, got '${text}'`)
  if (url.username !== '' || url.password !== '')
    throw new UsageError('--notify: a URL may not hold a user and password; put a program between, such as "curl -u ... -d {} URL"')
  return { url: text }
}

export class News {
  readonly #to: Address | null
  readonly #folder: RunFolder
  readonly #io: LoggedIo
  readonly #interrupted: AbortSignal
  readonly #stallMs: number
  #timer: NodeJS.Timeout | null = null

  constructor(to: Address | null, folder: RunFolder, io: LoggedIo, interrupted: AbortSignal, stallMs = STALL_MS) {
    this.#to = to
    this.#folder = folder
    this.#io = io
    this.#interrupted = interrupted
    this.#stallMs = stallMs
  }

  async tell(event: 'end' | 'error' | 'stall', text: string): Promise<void> {
    const interrupted = this.#interrupted
    if (this.#to === null || interrupted.aborted) return // whoever interrupted it is there
    const { name: run, root: folder } = this.#folder
    const cut = new Promise<string>((resolve) => interrupted.addEventListener('abort', () => resolve('it was interrupted'), { once: true }))
    const failure = await Promise.race([notify(this.#to, { event, run, text: text.replace(/\s+/g, ' ').trim(), folder }), cut])
    if (failure !== null) this.#io.say(`--notify: the news of this ${event} could not be delivered: ${failure}`)
  }

  /** Something was finished, or (false) nothing can be just now. Each long silence is told once. */
  alive(going: boolean): void {
    if (this.#timer) clearTimeout(this.#timer)
    this.#timer = null
    if (!going || this.#to === null) return
    const minutes = Math.round(this.#stallMs / 60_000)
    const text = `nothing was finished for ${minutes} minutes; look: autokernel logs ${this.#folder.name}`
    this.#timer = setTimeout(() => {
      this.#io.say(text)
      void this.tell('stall', `${this.#folder.name}: ${text}`)
    }, this.#stallMs)
  }
}
