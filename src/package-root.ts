/** Where autokernel itself lies: the folder with bench/, profile/, kernels/ and models/. */
import { existsSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { UsageError } from './errors.ts'

export const packageRoot = dirname(dirname(fileURLToPath(import.meta.url)))

/** FILE[:CLASS] -> the file, looked for in the current folder and then among the shipped models, and the class if one is named. */
export function findModel(text: string, cwd: string): { file: string; className: string | null } {
  const match = /^(.*?)(?::([A-Za-z_]\w*))?$/.exec(text)
  const name = match?.[1] ?? text
  const places = [resolve(cwd, name), join(packageRoot, 'models', basename(name))]
  const file = places.find((place) => existsSync(place))
  if (!file)
    throw new UsageError(
      `--model: expected a Python file, found none at ${places[0]} nor among the shipped models (gpt2.py, llama.py, bert.py, custom.py)`,
    )
  return { file, className: match?.[2] ?? null }
}
