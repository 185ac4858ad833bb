/** autokernel results --rebuild: a run's rows of results.tsv, written anew from its journal. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { formatRow, HEADER } from '../core/ledger.ts'
import { replaceRows, rowsOf } from '../core/rows.ts'
import { writeAtomically } from '../effects/files.ts'
import { readJournal } from '../effects/journal.ts'
import { lockOwner, takeRunLock } from '../effects/lock.ts'
import { UsageError } from '../errors.ts'
import type { Io } from '../io.ts'
import type { Options } from '../options.ts'
import { allRuns, findRun } from '../run-folder.ts'
import { startOf } from '../session-start.ts'

export async function rebuild(options: Options, io: Io): Promise<number> {
  const folder = findRun(io.cwd, options.run)
  // A daemon appends to the file it has open; one put in its place would never see those rows.
  const busy = allRuns(io.cwd).find((run) => lockOwner(run.lock) !== null)
  if (busy) throw new UsageError(`run ${busy.name} is running and writes to results.tsv; stop it first: autokernel stop ${busy.name}`)
  const lock = takeRunLock(folder.root, 'autokernel results --rebuild')
  try {
    const { header, events } = await readJournal(folder.events)
    const rows = rowsOf(startOf(header, folder).run, events)
    const path = join(io.cwd, 'results.tsv')
    const before = existsSync(path) ? readFileSync(path, 'utf8') : ''
    const [columns = '', ...lines] = before.split('\n').map((line) => line.replace(/\r$/, ''))
    if (lines.length === 0 ? !HEADER.startsWith(columns) : columns !== HEADER)
      throw new UsageError(
        `${path}: expected the columns of autokernel's results.tsv, found '${columns.slice(0, 60)}'; move that file away`,
      )
    const after = replaceRows(lines.length === 0 ? '' : before, folder.name, rows.map(formatRow))
    if (after !== before) await writeAtomically(path, after)
    if (io.json) io.document({ run: folder.name, rows: rows.length, changed: after !== before })
    else
      io.print(
        `${folder.name}: ${rows.length} rows from its journal; results.tsv ${after === before ? 'held them already' : 'is written anew'}`,
      )
    return 0
  } finally {
    lock.release()
  }
}
