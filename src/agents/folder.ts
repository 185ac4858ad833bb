/** What is in a folder that a program was let loose in: every file by its content, links by where they point, nothing followed. */
import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { lstat, open, readdir, readlink } from 'node:fs/promises'
import { join, relative } from 'node:path'

/** Larger files are told apart by size and time alone: reading gigabytes that a program dropped would hold up the run. */
const MAX_HASHED = 4 * 1024 * 1024

export async function snapshot(folder: string): Promise<Map<string, string>> {
  const seen = new Map<string, string>()
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  for (const entry of entries) {
    if (entry.isDirectory()) continue
    const path = join(entry.parentPath, entry.name)
    seen.set(relative(folder, path), await fingerprint(path))
  }
  return seen
}

async function fingerprint(path: string): Promise<string> {
  const status = await lstat(path)
  if (status.isSymbolicLink()) return `link to ${await readlink(path)}`
  if (!status.isFile()) return 'not a file'
  if (status.size > MAX_HASHED) return `${status.size} bytes at ${status.mtimeMs}`
  return createHash('sha256')
    .update(await readBytes(path, MAX_HASHED))
    .digest('hex')
}

/** The beginning of a text file, '' when there is none. A link is not followed: it could point at anything of ours. */
export async function readShort(path: string, limit = 4096): Promise<string> {
  const bytes = await readBytes(path, limit).catch(() => Buffer.alloc(0))
  return bytes.toString()
}

export async function readBytes(path: string, limit: number): Promise<Buffer> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  try {
    const { bytesRead, buffer } = await file.read({ buffer: Buffer.alloc(limit), length: limit, position: 0 })
    return buffer.subarray(0, bytesRead)
  } finally {
    await file.close()
  }
}
