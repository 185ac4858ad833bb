/** A command line -> the program's absolute path and its arguments, before a run depends on it. */
import { accessSync, constants, statSync } from 'node:fs'
import { delimiter, join, resolve } from 'node:path'
import { EnvironmentError } from './errors.ts'
import { splitWords } from './words.ts'

/** `flag` took the line. The program may run in another folder: a path to it is resolved here, its arguments are left alone. */
export function findProgram(command: string, flag: string, path = process.env.PATH ?? ''): [string, ...string[]] {
  const [program = '', ...args] = splitWords(command, flag)
  const places = program.includes('/') ? [resolve(program)] : path.split(delimiter).map((folder) => join(folder || '.', program))
  const found = places.find(isExecutable)
  if (!found) throw new EnvironmentError(`${flag}: expected a program '${program}', found none; install it, or give its whole path`)
  return [resolve(found), ...args]
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}
