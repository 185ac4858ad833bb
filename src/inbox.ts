/** Where results of running effects and news from outside arrive, in order, as one stream. */
export class Inbox<T> implements AsyncIterable<T> {
  readonly #waiting: T[] = []
  #running = 0
  #open = 0 // sources outside that may still bring news
  #wake: () => void = () => {}
  #failure: { error: unknown } | null = null

  put(item: T): void {
    this.#waiting.push(item)
    this.#wake()
  }

  /** An effect that runs on its own; what it resolves to comes in, null does not, a rejection ends the stream with it. */
  expect(result: Promise<T | null>): void {
    this.#running++
    result
      .then((item) => {
        if (item !== null) this.#waiting.push(item)
      })
      .catch((error: unknown) => {
        this.#failure ??= { error }
      })
      .finally(() => {
        this.#running--
        this.#wake()
      })
  }

  /** Keeps the stream open while news may come; call what it returns to let go. */
  hold(): () => void {
    this.#open++
    return () => {
      this.#open--
      this.#wake()
    }
  }

  /** Resolves when no effect is running any more. */
  async drained(): Promise<void> {
    while (this.#running > 0) await this.#news()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      if (this.#failure) throw this.#failure.error
      const item = this.#waiting.shift()
      if (item !== undefined) yield item
      else if (this.#running === 0 && this.#open === 0) return
      else await this.#news()
    }
  }

  #news(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve
    })
  }
}
