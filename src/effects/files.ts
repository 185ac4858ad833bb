/** Writes files so that a crash or a full disk leaves something whole behind. */
import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { EnvironmentError } from '../errors.ts'

/** The old file or the new one, never half of one. */
export async function writeAtomically(path: string, text: string): Promise<void> {
  // In the same folder, since a rename is atomic only within one file system.
  const temporary = join(dirname(path), `.${process.pid}-${Math.random().toString(36).slice(2)}.tmp`)
  try {
    const file = await open(temporary, 'wx')
    try {
      await file.writeFile(text)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
    await syncFolder(dirname(path))
  } catch (error) {
    await rm(temporary, { force: true })
    throw cannotWrite(path, error)
  }
}

/** Whole bytes at the end of a file opened for appending, on the disk when it resolves; none of them when it rejects. */
export async function appendDurably(file: FileHandle, path: string, bytes: Buffer): Promise<void> {
  let written = 0
  try {
    while (written < bytes.length) written += (await file.write(bytes, written)).bytesWritten
    await file.datasync()
  } catch (error) {
    await takeBack(file, bytes.subarray(0, written))
    throw cannotWrite(path, error)
  }
}

/** A full disk takes half a line. Only the very bytes that we wrote go: another run may have appended behind them. */
async function takeBack(file: FileHandle, bytes: Buffer): Promise<void> {
  if (bytes.length === 0) return
  const { size } = await file.stat()
  const tail = Buffer.alloc(bytes.length)
  const { bytesRead } = await file.read(tail, 0, tail.length, size - tail.length).catch(() => ({ bytesRead: 0 }))
  if (bytesRead === tail.length && tail.equals(bytes)) await file.truncate(size - tail.length)
}

/** Makes a new or renamed entry of the folder survive a power cut. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

/** The machine's reasons not to write, in one line; any other error as it is. */
export function cannotWrite(path: string, error: unknown): unknown {
  const code = error instanceof Error && 'code' in error ? error.code : null
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return new EnvironmentError(`${path}: the disk is full; free some space and resume`, { cause: error })
  if (code === 'EISDIR') return new EnvironmentError(`${path}: expected a file, found a folder; move it away`, { cause: error })
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS') {
    return new EnvironmentError(`${path}: expected to write there, found it read-only; start in a folder of yours, or use -C DIR`, {
      cause: error,
    })
  }
  return error
}
