/** results.tsv: one whole row at a time, on the disk, and never the same row twice. */
import { accessSync, constants, existsSync, lstatSync, readFileSync, statSync } from 'node:fs'
import { type FileHandle, open, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { formatRow, HEADER } from '../core/ledger.ts'
import { UsageError } from '../errors.ts'
import type { Ledger } from '../ports.ts'
import type { Row } from '../row.ts'
import { appendDurably, cannotWrite, syncFolder, writeAtomically } from './files.ts'

const COLUMNS = HEADER.split('\t')
const KEY = ['run', 'experiment', 'kernel', 'agent'].map((name) => COLUMNS.indexOf(name))

/** What the journal of a resumed run says that it has written: all of `rows`, and perhaps `underWay`. */
export type Due = { rows: Row[]; underWay: Row | null }

export class LedgerFile implements Ledger {
  private readonly path: string
  private readonly run: string
  private file: FileHandle
  private written: Set<string>
  private last: Promise<void> = Promise.resolve()

  private constructor(path: string, run: string, opened: Opened) {
    this.path = path
    this.run = run
    this.file = opened.file
    this.written = opened.written
  }

  /** Opens or starts the ledger for one run. Rows that a crash cut short or kept from being written are made good; rows of this run that no journal knows go. */
  static async open(path: string, run: string, due: Due | null = null): Promise<LedgerFile> {
    if (due) await removeUnknown(path, run, due)
    const ledger = new LedgerFile(path, run, await openFile(path, run))
    for (const row of due?.rows ?? []) await ledger.append(row)
    return ledger
  }

  append(row: Row): Promise<void> {
    this.last = this.last.then(async () => {
      await this.follow()
      const line = formatRow(row)
      if (this.written.has(keyOf(line))) return
      await appendDurably(this.file, this.path, Buffer.from(`${line}\n`))
      this.written.add(keyOf(line))
    })
    return this.last
  }

  async close(): Promise<void> {
    await this.last.catch(() => {}) // whoever appended has heard of it
    await this.file.close()
  }

  /** An editor saves by putting a new file in the old one's place; what we appended to the old one then would be lost. */
  private async follow(): Promise<void> {
    const [now, ours] = await Promise.all([stat(this.path).catch(() => null), this.file.stat()])
    if (now !== null && now.ino === ours.ino && now.dev === ours.dev) return
    const opened = await openFile(this.path, this.run)
    await this.file.close()
    this.file = opened.file
    this.written = opened.written
  }
}

type Opened = { file: FileHandle; written: Set<string> }

async function openFile(path: string, run: string): Promise<Opened> {
  const file = await open(path, 'a+').catch((cause: unknown) => {
    throw cannotWrite(path, cause)
  })
  try {
    const text = (await file.readFile()).toString('utf8')
    mustBeOurs(path, text)
    const whole = text.slice(0, text.lastIndexOf('\n') + 1)
    const [, ...rows] = linesOf(whole)
    const tail = text.slice(whole.length)
    if (whole !== '' && isSomebodyElses(tail, run)) await appendDurably(file, path, Buffer.from('\n'))
    else if (tail !== '') await file.truncate(Buffer.byteLength(whole))
    if (whole === '') {
      await appendDurably(file, path, Buffer.from(`${HEADER}\n`))
      await syncFolder(dirname(path))
    }
    return { file, written: new Set(rows.filter((row) => row !== '').map(keyOf)) }
  } catch (error) {
    await file.close()
    throw error
  }
}

/** Before a run begins: whether there is a ledger that it can append to, or none. */
export function refuseForeignLedger(path: string): void {
  const link = lstatSync(path, { throwIfNoEntry: false })
  if (link === undefined) return
  if (!existsSync(path)) throw new UsageError(`${path}: expected a file or nothing, found a link to nothing; remove it, or use -C DIR`)
  if (!statSync(path).isFile())
    throw new UsageError(`${path}: expected a file or nothing, found something else; move it away, or use -C DIR`)
  try {
    accessSync(path, constants.W_OK)
    mustBeOurs(path, readFileSync(path, 'utf8'))
  } catch (error) {
    throw cannotWrite(path, error)
  }
}

function mustBeOurs(path: string, text: string): void {
  const header = text.split('\n', 1)[0] ?? ''
  if (text.includes('\n') ? header.replace(/\r$/, '') === HEADER : HEADER.startsWith(text)) return
  throw new UsageError(
    `${path}: expected the columns of autokernel's results.tsv, found '${header.slice(0, 60)}'; move that file away, or use -C DIR`,
  )
}

/** Rows of verdicts that this run's journal does not have: it was damaged and cut, and the experiment will be judged again. */
async function removeUnknown(path: string, run: string, { rows, underWay }: Due): Promise<void> {
  const file = await open(path, 'r').catch(() => null)
  if (file === null) return
  const text = (await file.readFile()).toString('utf8')
  await file.close()
  const known = new Set([...rows, ...(underWay ? [underWay] : [])].map((row) => keyOf(formatRow(row))))
  const lines = text.slice(0, text.lastIndexOf('\n') + 1).split('\n')
  const kept = lines.filter((line) => line.split('\t')[0] !== run || known.has(keyOf(line.replace(/\r$/, ''))))
  if (lines[0] === HEADER && kept.length < lines.length) await writeAtomically(path, kept.join('\n'))
}

const linesOf = (text: string): string[] => text.split('\n').map((line) => line.replace(/\r$/, ''))

function keyOf(line: string): string {
  const fields = line.split('\t')
  return KEY.map((column) => fields[column]).join('\t')
}

/** A full row of another run, or one that an editor saved without its last newline: not ours to remove. */
function isSomebodyElses(line: string, run: string): boolean {
  const fields = line.split('\t')
  return fields.length === COLUMNS.length && fields[0] !== run
}
