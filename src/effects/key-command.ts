/** Gets a key from a program of the user's, such as a password store. What it prints goes to whoever asked and nowhere else. */
import { execa } from 'execa'
import { hasEnded, killAtExit, killTree } from './process-tree.ts'

export type KeyAnswer = { kind: 'key'; key: string } | { kind: 'none'; found: string }

const PATIENCE_MS = 60_000 // somebody may have to type a passphrase or to touch a token
const MAX_OUTPUT = 64 * 1024
const POSSIBLE = /^[\x21-\x7e]+$/ // what can stand in a header

/** No shell. Neither output is ever quoted: a program that fails may print the key where nobody expects it. */
export async function keyFrom([program, ...args]: [string, ...string[]], patienceMs = PATIENCE_MS): Promise<KeyAnswer> {
  const child = execa(program, args, {
    detached: true, // a group of its own, so that whatever it started ends with it
    cleanup: false,
    reject: false,
    stdin: 'ignore',
    stderr: 'ignore',
    maxBuffer: MAX_OUTPUT,
  })
  const { pid } = child
  if (pid === undefined) {
    await child
    return none('a program that cannot be started')
  }
  killAtExit(pid)
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<null>((resolve) => {
    timer = setTimeout(() => {
      killTree(pid)
      child.stdout.destroy() // something that left the group may hold it open
      resolve(null)
    }, patienceMs)
  })
  const ended = await Promise.race([child, late])
  clearTimeout(timer)
  hasEnded(pid)
  if (ended === null) return none(`none after ${patienceMs / 1000} s, and ended it`)
  if (ended.isMaxBuffer) return none(`more than ${MAX_OUTPUT / 1024} KiB`)
  if (ended.exitCode !== 0) return none(ended.exitCode === undefined ? `its end by ${ended.signal}` : `exit code ${ended.exitCode}`)
  const key = ended.stdout.split('\n')[0]?.trim() ?? ''
  if (key === '') return none('an empty line')
  return POSSIBLE.test(key) ? { kind: 'key', key } : none('a line with spaces or characters that no key has')
}

const none = (found: string): KeyAnswer => ({ kind: 'none', found })
