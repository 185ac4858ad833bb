/** What the machine itself refuses (space, handles, processes) as an error that a person can act on: one line, exit 3. */
import { AuthenticationError, EnvironmentError, TemporaryError, UsageError } from './errors.ts'

const REFUSALS = new Map([
  ['ENOSPC', 'the disk is full; free some space and resume'],
  ['EDQUOT', 'the disk quota is used up; free some space and resume'],
  ['EROFS', 'the disk is read-only; make it writable, or use -C DIR'],
  ['EMFILE', 'no file handles are left; raise the limit (ulimit -n) and resume'],
  ['ENFILE', 'the machine has no file handles left; close some programs and resume'],
  ['EAGAIN', 'no more processes may be started; raise the limit (ulimit -u) and resume'],
  ['ENOMEM', 'the machine is out of memory; free some and resume'],
  ['EISDIR', 'expected a file, found a folder; move it away'],
  ['ERR_FS_EISDIR', 'expected a file, found a folder; move it away'], // of rm
  ['ENOTDIR', 'expected folders on the way there, found a file among them; move it away'],
  ['EIO', 'the disk does not work (input/output error); see dmesg'],
])

/** Any other error as it is. */
export function machineError(error: unknown): unknown {
  if ([UsageError, EnvironmentError, AuthenticationError, TemporaryError].some((known) => error instanceof known)) return error
  for (let each = error; each instanceof Error; each = each.cause) {
    const why = REFUSALS.get('code' in each ? String(each.code) : '')
    if (why !== undefined) return new EnvironmentError(`${whereOf(each)}${why}`, { cause: error })
  }
  return error
}

const whereOf = (error: Error): string => ('path' in error && typeof error.path === 'string' ? `${error.path}: ` : '')
