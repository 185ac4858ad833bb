/** Locks that die with their holder: flock on a file that this process keeps open. */
import { spawn, spawnSync } from 'node:child_process'
import { chmodSync, closeSync, constants, existsSync, ftruncateSync, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { EnvironmentError, TemporaryError, ToolError } from '../errors.ts'
import { cannotWrite } from './files.ts'

export type Lock = { release: () => void }

// Not os.tmpdir(): TMPDIR differs between users and jobs, and a device is shared by the whole machine.
const MACHINE_FOLDER = '/tmp/autokernel-locks'

/**
 * One owner per run. Taken already: TemporaryError that names the owner. `doing` is for one that is no daemon and takes no orders.
 */
export function takeRunLock(runFolder: string, doing?: string): Lock {
  const path = join(runFolder, 'lock')
  const inUse = (owner: string) =>
    new TemporaryError(`${runFolder} is in use by process ${owner}; wait for it, or end it with 'autokernel stop'`)
  const owner = lockOwner(path)
  if (owner !== null) throw inUse(owner)
  const fd = openShared(path)
  if (tryLock(fd, ['-w', '0.2'])) return held(fd, doing) // lockOwner() of a 'status' may have it for a moment
  closeSync(fd)
  throw inUse(ownerOf(path))
}

const ALONE_S = '10'

/** Does something while nobody else does so with this file. */
export function alone<T>(path: string, work: () => T): T {
  let fd: number
  try {
    fd = openSync(path, 'a')
  } catch (error) {
    throw cannotWrite(path, error)
  }
  try {
    if (!tryLock(fd, ['-w', ALONE_S])) throw new TemporaryError(`${path}: another process has had it for ${ALONE_S} s; try again`)
    return work()
  } finally {
    closeSync(fd)
  }
}

/** The process that holds the lock now; null when nobody does. */
export function lockOwner(path: string): string | null {
  if (!existsSync(path)) return null
  const fd = openSync(path, 'r')
  try {
    return tryLock(fd, ['-n', '-s']) ? null : ownerOf(path) // what the file says may be of a process long gone
  } finally {
    closeSync(fd)
  }
}

/** One measurement at a time on a device, whichever user asks: waits for its turn. */
export async function takeDeviceLock(device: string, onWait: OnWait, signal?: AbortSignal, folder = MACHINE_FOLDER): Promise<Lock> {
  try {
    if (mkdirSync(folder, { recursive: true }) !== undefined) chmodSync(folder, 0o1777) // past the umask
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : ''
    if (!/^(ENOENT|ENOTDIR|EEXIST|EACCES|EPERM|EROFS)$/.test(code)) throw cannotWrite(folder, cause)
    throw new EnvironmentError(
      `${folder}: expected a folder for the locks of devices, found ${code}; set AUTOKERNEL_LOCKS to one you can write to`,
      { cause },
    )
  }
  return waitForLock(join(folder, `${device.replace(/[^\w-]+/g, '-')}.lock`), onWait, signal)
}

type OnWait = (owner: string) => void // called once, when somebody else has it

export async function waitForLock(path: string, onWait: OnWait, signal?: AbortSignal): Promise<Lock> {
  const fd = openShared(path)
  try {
    if (!tryLock(fd)) {
      onWait(ownerOf(path))
      await untilLocked(fd, signal)
    }
    return held(fd)
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

/** The lock belongs to the open file, which the helper shares with us: it stays when the helper has ended. */
function tryLock(fd: number, patience: string[] = ['-n']): boolean {
  const { status, error } = spawnSync('flock', [...patience, '3'], { stdio: ['ignore', 'ignore', 'ignore', fd] })
  if (status !== 0 && status !== 1) throw noFlock(error)
  return status === 0
}

async function untilLocked(fd: number, signal?: AbortSignal): Promise<void> {
  while (!(await lockedWithin(fd, signal)));
}

/** A helper that outlives a killed daemon has the lock for nobody, and is gone after these seconds. */
const HELPER_S = '5'

function lockedWithin(fd: number, signal?: AbortSignal): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const helper = spawn('flock', ['-w', HELPER_S, '3'], { stdio: ['ignore', 'ignore', 'ignore', fd] })
    const stop = (): void => void helper.kill('SIGKILL')
    process.once('exit', stop)
    signal?.addEventListener('abort', stop, { once: true })
    if (signal?.aborted) stop()
    helper.once('error', (error) => reject(noFlock(error)))
    helper.once('close', (code) => {
      process.off('exit', stop)
      signal?.removeEventListener('abort', stop)
      if (signal?.aborted) reject(signal.reason)
      else if (code === 0 || code === 1) resolve(code === 0)
      else reject(new ToolError(`flock ended with ${code} while waiting for a lock`))
    })
  })
}

function held(fd: number, doing?: string): Lock {
  ftruncateSync(fd)
  writeSync(fd, `${process.pid}${doing === undefined ? '' : ` (${doing})`}\n`, 0)
  return { release: () => closeSync(fd) }
}

function ownerOf(path: string): string {
  return readFileSync(path, 'utf8').trim() || 'of unknown number'
}

function noFlock(cause: unknown): unknown {
  const code = cause instanceof Error && 'code' in cause ? cause.code : null
  if (code !== null && code !== 'ENOENT') return cause // it is there, and could not be started: no handles or processes left
  return new EnvironmentError('flock: expected on PATH, found none that works; install util-linux (macOS: brew install flock)', { cause })
}

/**
 * Open for every user: where /tmp is protected, opening another user's file with O_CREAT is refused, without it is not.
 * In such a folder anybody may lay a link to a file of ours, which would then be written over.
 */
function openShared(path: string): number {
  try {
    return openSync(path, constants.O_RDWR | constants.O_NOFOLLOW)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : null
    if (code === 'ELOOP') throw new EnvironmentError(`${path}: expected a lock, found a symbolic link; remove it`, { cause: error })
    if (code !== 'ENOENT') throw cannotWrite(path, error)
  }
  try {
    const fd = openSync(path, 'a+', 0o666)
    chmodSync(path, 0o666) // past the umask
    return fd
  } catch (error) {
    throw cannotWrite(path, error)
  }
}
