/** A folder for one test, gone after it. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach } from 'vitest'

const folders: string[] = []
afterEach(async () => {
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true, force: true })
})

export async function scratchFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'autokernel-test-'))
  folders.push(folder)
  return folder
}
