/** Cuts a stream into lines without ever holding more than one bounded line. */
import type { Readable } from 'node:stream'

export function readLines(stream: Readable, maxBytes: number, onLine: (line: string) => void, onTooLong: () => void): void {
  let parts: Buffer[] = []
  let length = 0
  const add = (part: Buffer): boolean => {
    parts.push(part)
    length += part.length
    if (length <= maxBytes) return true
    stream.removeAllListeners('data').resume() // what still comes is thrown away, so that the writer does not block
    parts = []
    onTooLong()
    return false
  }
  stream.on('data', (chunk: Buffer) => {
    let from = 0
    for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, from)) {
      if (!add(chunk.subarray(from, end))) return
      const line = Buffer.concat(parts).toString('utf8')
      parts = []
      length = 0
      from = end + 1
      onLine(line)
    }
    add(chunk.subarray(from))
  })
}
