/** results.tsv: one whole row at a time, on the disk, and never the same row twice. */
import { type FileHandle, open } from 'node:fs/promises'
import { formatRow, HEADER } from '../core/ledger.ts'
import { UsageError } from '../errors.ts'
import type { Ledger, Row } from '../types.ts'
import { appendDurably, cannotWrite } from './files.ts'

const COLUMNS = HEADER.split('\t')
const KEY = ['run', 'experiment', 'kernel', 'agent'].map((name) => COLUMNS.indexOf(name))

export class LedgerFile implements Ledger {
  private readonly file: FileHandle
  private readonly path: string
  private readonly written: Set<string>
  private last: Promise<void> = Promise.resolve()

  private constructor(file: FileHandle, path: string, written: Set<string>) {
    this.file = file
    this.path = path
    this.written = written
  }

  /** Opens or starts the ledger for one run; a row that a crash cut short is removed, since resuming writes it again. */
  static async open(path: string, run: string): Promise<LedgerFile> {
    const file = await open(path, 'a+').catch((cause: unknown) => {
      throw cannotWrite(path, cause)
    })
    try {
      const bytes = await file.readFile()
      const text = bytes.toString('utf8')
      const whole = text.slice(0, text.lastIndexOf('\n') + 1)
      const [header = '', ...rows] = whole.split('\n').map((line) => line.replace(/\r$/, ''))
      if (whole === '' ? !HEADER.startsWith(text) : header !== HEADER) {
        const found = text.split('\n', 1)[0]?.slice(0, 60)
        throw new UsageError(
          `${path}: expected the columns of autokernel's results.tsv, found '${found}'; move that file away, or use -C DIR`,
        )
      }
      const written = new Set(rows.filter((row) => row !== '').map(keyOf))
      const ledger = new LedgerFile(file, path, written)

      const tail = text.slice(whole.length)
      if (whole !== '' && isSomebodyElses(tail, run)) await appendDurably(file, path, Buffer.from('\n'))
      else if (tail !== '') await file.truncate(Buffer.byteLength(whole))
      if (whole === '') await appendDurably(file, path, Buffer.from(`${HEADER}\n`))
      return ledger
    } catch (error) {
      await file.close()
      throw error
    }
  }

  append(row: Row): Promise<void> {
    this.last = this.last.then(async () => {
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
}

function keyOf(line: string): string {
  const fields = line.split('\t')
  return KEY.map((column) => fields[column]).join('\t')
}

/** A full row of another run, or one that an editor saved without its last newline: not ours to remove. */
function isSomebodyElses(line: string, run: string): boolean {
  const fields = line.split('\t')
  return fields.length === COLUMNS.length && fields[0] !== run
}
