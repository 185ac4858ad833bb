/** Folders of ours for a while: gone when their maker lets go of them, and when we exit before that, at once or in an orderly way. */
import { mkdtempSync, rmSync } from 'node:fs'
import { rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { EnvironmentError } from '../errors.ts'
import { cannotWrite } from './files.ts'
import { killAll } from './process-tree.ts'

/** A process that was killed just now may still be writing there. */
const PATIENT = { recursive: true, force: true, maxRetries: 10, retryDelay: 20 } as const

const alive = new Set<string>()

/** One in the machine's place for temporary files. */
export function scratchFolder(purpose: string): string {
  const place = tmpdir()
  try {
    return made(join(place, `autokernel-${purpose}-`))
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : ''
    if (!/^(ENOENT|ENOTDIR|EACCES|EPERM|EROFS)$/.test(code)) throw cause // no space or handles left: machineError() has the words
    throw new EnvironmentError(`${place}: expected a folder for temporary files, found ${code}; set TMPDIR to one you can write to`, {
      cause,
    })
  }
}

/** Never fails: what cannot be removed now is tried once more when we exit. */
export async function dropFolder(folder: string): Promise<void> {
  await rm(folder, PATIENT).then(
    () => alive.delete(folder),
    () => {},
  )
}

/** One file a text, in order, inside `folder`; gone when `use` has ended, however it ended. */
export async function withFiles<T>(folder: string, texts: string[], use: (paths: string[]) => Promise<T>): Promise<T> {
  let scratch = folder
  try {
    scratch = made(join(folder, 'sweep-'))
    const paths = texts.map((_, i) => join(scratch, `${i}.py`))
    for (const [i, path] of paths.entries()) await writeFile(path, texts[i] ?? '')
    return await use(paths)
  } catch (error) {
    throw cannotWrite(scratch, error)
  } finally {
    if (scratch !== folder) await dropFolder(scratch)
  }
}

function made(prefix: string): string {
  const folder = mkdtempSync(prefix)
  if (alive.size === 0) {
    process.off('exit', dropAll)
    process.on('exit', dropAll)
  }
  alive.add(folder)
  return folder
}

function dropAll(): void {
  killAll() // whoever works there would make it anew
  for (const folder of alive) {
    try {
      rmSync(folder, PATIENT)
    } catch {
      // a candidate may have made what we may not remove; nothing more can be done about it
    }
  }
}
