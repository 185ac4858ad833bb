/** Who is told what of a run: its end, an error, and that nothing has come of it for a long time. */
import { notify } from './effects/notify.ts'
import type { LoggedIo } from './log.ts'
import type { RunFolder } from './run-folder.ts'

const STALL_MS = 30 * 60_000

export class News {
  readonly #to: string | undefined
  readonly #folder: RunFolder
  readonly #io: LoggedIo
  readonly #stallMs: number
  #timer: NodeJS.Timeout | null = null

  constructor(to: string | undefined, folder: RunFolder, io: LoggedIo, stallMs = STALL_MS) {
    this.#to = to
    this.#folder = folder
    this.#io = io
    this.#stallMs = stallMs
  }

  async tell(event: 'end' | 'error' | 'stall', text: string): Promise<void> {
    if (this.#to === undefined) return
    const { name: run, root: folder } = this.#folder
    const failure = await notify(this.#to, { event, run, text: text.replace(/\s+/g, ' ').trim(), folder })
    if (failure !== null) this.#io.say(`--notify: the news of this ${event} could not be delivered: ${failure}`)
  }

  /** Something was finished, or (false) nothing can be just now. Each long silence is told once. */
  alive(going: boolean): void {
    if (this.#timer) clearTimeout(this.#timer)
    this.#timer = null
    if (!going || this.#to === undefined) return
    const minutes = Math.round(this.#stallMs / 60_000)
    const text = `nothing was finished for ${minutes} minutes; look: autokernel logs ${this.#folder.name}`
    this.#timer = setTimeout(() => {
      this.#io.say(text)
      void this.tell('stall', `${this.#folder.name}: ${text}`)
    }, this.#stallMs)
  }
}
