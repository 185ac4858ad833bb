/**
 * events.jsonl, the source of truth of a run: one event a line, on the disk before anybody acts on it.
 * The last field of each line is the CRC-32 of what the line is without it.
 */
import { createReadStream, existsSync, statSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { crc32 } from 'node:zlib'
import { z } from 'zod'
import { UsageError } from '../errors.ts'
import type { Journal } from '../ports.ts'
import type { Event } from '../types.ts'
import { appendDurably, cannotWrite, writeAtomically } from './files.ts'

/** The first line: what the file is, and what the run was started with (`start` is its writer's business). */
export const FORMAT = 2
const Header = z.object({ format: z.literal(FORMAT), run: z.string(), start: z.unknown() })
export type Header = z.infer<typeof Header>

const SEAL_BYTES = ',"crc":"01234567"}'.length
const StoredEvent = z.looseObject({ type: z.string(), seq: z.number().int(), at: z.number(), wall: z.string() })

const KINDS: Record<Event['type'], true> = {
  started: true,
  baselined: true,
  answered: true,
  swept: true,
  committed: true,
  checked: true,
  timed: true,
  confirmed: true,
  declined: true,
  settled: true,
  woke: true,
  deadline: true,
  stop: true,
  paused: true,
  resumed: true,
}

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
    if (existsSync(path)) throw new UsageError(`${path} exists already; choose another --run, or continue it with --resume`)
    await writeAtomically(path, sealed(header)) // a journal that is there can be resumed
    const file = await open(path, 'a+').catch((cause: unknown) => {
      throw cannotWrite(path, cause)
    })
    return new JournalFile(file, path)
  }

  /** Goes on where a run stopped. A last line that a crash cut short never happened: it is removed. */
  static async resume(path: string): Promise<{ journal: JournalFile; recorded: Recorded }> {
    const recorded = await readJournal(path)
    const file = await open(path, 'a+').catch((cause: unknown) => {
      throw cannotWrite(path, cause)
    })
    await file.truncate(recorded.bytes)
    await file.sync()
    return { journal: new JournalFile(file, path), recorded }
  }

  async append(event: Event): Promise<void> {
    const line = Buffer.from(sealed(event))
    this.last = this.last.then(() => appendDurably(this.file, this.path, line)) // one after the other: two lines must never mix
    await this.last
  }

  async close(): Promise<void> {
    await this.last.catch(() => {}) // whoever appended has heard of it
    await this.file.close()
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
      if (header === null)
        throw new UsageError(
          `${path}: expected the header of an autokernel journal, format ${FORMAT}, in line 1; restore the file, or start a new run`,
        )
      continue
    }
    const event = StoredEvent.safeParse(value)
    if (!event.success) throw broken(path, number, z.prettifyError(event.error).replace(/\s+/g, ' '))
    const due = (events.at(-1)?.seq ?? event.data.seq - 1) + 1
    if (event.data.seq !== due) throw broken(path, number, `expected event ${due}, found ${event.data.seq}`)
    if (!Object.hasOwn(KINDS, event.data.type))
      throw new UsageError(
        `${path}: line ${number}: expected an event that this version knows, found '${event.data.type}'; go on with the version that wrote it`,
      )
    events.push(value as Event) // written by append() from an Event; the checks above say that the file is that file
  }
  if (header === null) throw new UsageError(`${path}: expected the journal of a run, found an empty file; restore it, or start a new run`)
  return { header, events, bytes }
}

function sealed(value: object): string {
  const text = JSON.stringify(value)
  return `${text.slice(0, -1)},"crc":"${checksum(text)}"}\n`
}

const checksum = (text: string | Buffer): string => crc32(text).toString(16).padStart(8, '0')

function parseLine(line: Buffer, path: string, number: number): unknown {
  const seal = /^,"crc":"([0-9a-f]{8})"}$/.exec(line.subarray(-SEAL_BYTES).toString('latin1'))?.[1]
  const text = Buffer.concat([line.subarray(0, -SEAL_BYTES), Buffer.from('}')])
  const parsed = parse(line)
  if (seal && seal !== checksum(text)) throw broken(path, number, `its checksum is ${checksum(text)}, expected ${seal}`)
  const other = z.object({ format: z.number() }).safeParse(parsed)
  if (number === 1 && other.success && other.data.format !== FORMAT)
    throw new UsageError(
      `${path}: expected a journal of format ${FORMAT}, found format ${other.data.format}; go on with the version that wrote it`,
    )
  if (!seal) throw broken(path, number, parsed === null ? 'not JSON' : 'no checksum at its end')
  return parse(text)
}

function parse(line: Buffer): unknown {
  try {
    return JSON.parse(line.toString('utf8'))
  } catch {
    return null
  }
}

function broken(path: string, number: number, why: string): UsageError {
  return new UsageError(`${path}: line ${number} is damaged (${why}); restore the file, or start a new run`)
}

async function* wholeLines(path: string): AsyncGenerator<Buffer> {
  let rest: Buffer[] = []
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory())
    throw new UsageError(`${path}: expected the journal of a run, found a folder; restore the file, or start a new run`)
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
