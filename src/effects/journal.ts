/** events.jsonl, the source of truth of a run: one event a line, on the disk before anybody acts on it. */
import { createReadStream } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { dirname } from 'node:path'
import { z } from 'zod'
import { ToolError, UsageError } from '../errors.ts'
import type { Event, Journal } from '../types.ts'
import { appendDurably, cannotWrite, syncFolder } from './files.ts'

/** The first line: what the file is, and what the run was started with (`start` is its writer's business). */
const Header = z.object({ format: z.literal(1), run: z.string(), start: z.unknown() })
export type Header = z.infer<typeof Header>

const StoredEvent = z.looseObject({ type: z.string(), seq: z.number().int(), at: z.number(), wall: z.string() })

export type Recorded = { header: Header; events: Event[]; bytes: number } // bytes: length of the whole lines

export class JournalFile implements Journal {
  private readonly file: FileHandle
  private readonly path: string
  private last: Promise<void> = Promise.resolve()

  private constructor(file: FileHandle, path: string) {
    this.file = file
    this.path = path
  }

  static async create(path: string, header: Header): Promise<JournalFile> {
    const file = await open(path, 'ax').catch((cause: NodeJS.ErrnoException) => {
      if (cause.code === 'EEXIST')
        throw new UsageError(`${path} exists already; choose another --run, or continue it with --resume`, { cause })
      throw cannotWrite(path, cause)
    })
    const journal = new JournalFile(file, path)
    await journal.writeLine(header)
    await syncFolder(dirname(path))
    return journal
  }

  /** Goes on where a run stopped. A last line that a crash cut short never happened: it is removed. */
  static async resume(path: string): Promise<{ journal: JournalFile; recorded: Recorded }> {
    const recorded = await readJournal(path)
    const file = await open(path, 'a').catch((cause: unknown) => {
      throw cannotWrite(path, cause)
    })
    await file.truncate(recorded.bytes)
    await file.sync()
    return { journal: new JournalFile(file, path), recorded }
  }

  async append(event: Event): Promise<void> {
    await this.writeLine(event)
  }

  async close(): Promise<void> {
    await this.last.catch(() => {}) // whoever appended has heard of it
    await this.file.close()
  }

  /** One after the other: two lines must never mix. */
  private writeLine(value: unknown): Promise<void> {
    const line = Buffer.from(`${JSON.stringify(value)}\n`)
    this.last = this.last.then(() => appendDurably(this.file, this.path, line))
    return this.last
  }
}

/** Every whole line, for resuming and for the commands that only look (a run may be writing at the same time). */
export async function readJournal(path: string): Promise<Recorded> {
  let header: Header | null = null
  const events: Event[] = []
  let bytes = 0
  let number = 0
  for await (const line of wholeLines(path)) {
    number += 1
    bytes += line.length + 1
    const value = parseLine(line, path, number)
    if (header === null) {
      header = Header.safeParse(value).data ?? null
      if (header === null) throw new UsageError(`${path}: expected the header of an autokernel journal, format 1, in line 1`)
      continue
    }
    const event = StoredEvent.safeParse(value)
    if (!event.success) throw broken(path, number, z.prettifyError(event.error))
    const due = (events.at(-1)?.seq ?? event.data.seq - 1) + 1
    if (event.data.seq !== due) throw broken(path, number, `expected event ${due}, found ${event.data.seq}`)
    events.push(value as Event) // written by append() from an Event; the checks above say that the file is that file
  }
  if (header === null) throw new UsageError(`${path}: expected the journal of a run, found an empty file`)
  return { header, events, bytes }
}

function parseLine(line: Buffer, path: string, number: number): unknown {
  try {
    return JSON.parse(line.toString('utf8'))
  } catch (cause) {
    throw broken(path, number, 'not JSON', cause)
  }
}

function broken(path: string, number: number, why: string, cause?: unknown): ToolError {
  return new ToolError(`${path}: line ${number} is damaged (${why}); restore the file, or start a new run`, { cause })
}

async function* wholeLines(path: string): AsyncGenerator<Buffer> {
  let rest: Buffer[] = []
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>) {
    let from = 0
    for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, from)) {
      yield Buffer.concat([...rest, chunk.subarray(from, end)])
      rest = []
      from = end + 1
    }
    rest.push(chunk.subarray(from))
  }
}
