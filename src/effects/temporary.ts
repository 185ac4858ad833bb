/** Texts in files for as long as somebody reads them. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { cannotWrite } from './files.ts'

/** One file a text, in order, inside `folder`; gone when `use` has ended, however it ended. */
export async function withFiles<T>(folder: string, texts: string[], use: (paths: string[]) => Promise<T>): Promise<T> {
  const scratch = await mkdtemp(join(folder, 'sweep-')).catch((error: unknown) => Promise.reject(cannotWrite(folder, error)))
  try {
    const paths = texts.map((_, i) => join(scratch, `${i}.py`))
    for (const [i, path] of paths.entries()) await writeFile(path, texts[i] ?? '')
    return await use(paths)
  } catch (error) {
    throw cannotWrite(scratch, error)
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}
