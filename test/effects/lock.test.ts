import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it, onTestFinished, vi } from 'vitest'
import { lockOwner, takeDeviceLock, takeRunLock } from '../../src/effects/lock.ts'
import { EnvironmentError, TemporaryError } from '../../src/errors.ts'
import { tempFolder } from './temp.ts'

const LOCK = new URL('../../src/effects/lock.ts', import.meta.url).href

/** Another process that runs a line of code with the lock functions, says 'have it' and stays. */
async function holder(code: string): Promise<ChildProcess> {
  const script = `import { takeRunLock, takeDeviceLock } from ${JSON.stringify(LOCK)}\n${code}\nconsole.log('have it')\nsetInterval(() => {}, 1000)`
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  await new Promise((resolve, reject) => {
    child.stdout?.once('data', resolve)
    child.once('close', () => reject(new Error('the holder ended')))
  })
  return child
}

const gone = (child: ChildProcess): Promise<unknown> => new Promise((resolve) => child.once('close', resolve))

it('gives a run to one process, tells the next who has it, and is free when its holder was killed', async () => {
  const folder = tempFolder()
  const other = await holder(`takeRunLock(${JSON.stringify(folder)})`)
  expect(() => takeRunLock(folder)).toThrow(TemporaryError)
  expect(() => takeRunLock(folder)).toThrow(`in use by process ${other.pid};`)
  expect(lockOwner(join(folder, 'lock'))).toBe(String(other.pid))
  other.kill('SIGKILL')
  await gone(other)
  expect(lockOwner(join(folder, 'lock'))).toBe(null)
  const mine = takeRunLock(folder)
  expect(lockOwner(join(folder, 'lock'))).toBe(String(process.pid))
  mine.release()
  expect(lockOwner(join(folder, 'lock'))).toBe(null)
  expect(lockOwner(join(folder, 'nothing'))).toBe(null)
})

it('waits for a device, saying for whom, and has it when the holder is gone', async () => {
  const folder = join(tempFolder(), 'locks')
  const other = await holder(`await takeDeviceLock('cuda:0', () => {}, undefined, ${JSON.stringify(folder)})`)
  const onWait = vi.fn()
  let has = false
  const waiting = takeDeviceLock('cuda:0', onWait, undefined, folder).then((lock) => {
    has = true
    return lock
  })
  const elsewhere = await takeDeviceLock('cpu', onWait, undefined, folder)
  expect(has).toBe(false)
  other.kill('SIGKILL')
  const lock = await waiting
  expect(onWait.mock.calls).toEqual([[String(other.pid)]])
  expect(lockOwner(join(folder, 'cuda-0.lock'))).toBe(String(process.pid))
  lock.release()
  elsewhere.release()
})

it('stops waiting when asked to, and leaves the lock to its owner', async () => {
  const folder = join(tempFolder(), 'locks')
  const first = await takeDeviceLock('cpu', () => {}, undefined, folder)
  const stop = new AbortController()
  const waiting = takeDeviceLock('cpu', () => stop.abort(new Error('enough')), stop.signal, folder)
  await expect(waiting).rejects.toThrow('enough')
  expect(lockOwner(join(folder, 'cpu.lock'))).toBe(String(process.pid))
  first.release()
  expect(lockOwner(join(folder, 'cpu.lock'))).toBe(null)
})

it('makes the device locks usable by every user of the machine', async () => {
  const folder = join(tempFolder(), 'locks')
  const mask = process.umask(0o077)
  try {
    ;(await takeDeviceLock('cpu', () => {}, undefined, folder)).release()
  } finally {
    process.umask(mask)
  }
  expect(statSync(folder).mode & 0o7777).toBe(0o1777)
  expect(statSync(join(folder, 'cpu.lock')).mode & 0o777).toBe(0o666)
})

it('follows no link that somebody laid where a lock belongs, and writes nothing through it', async () => {
  const folder = tempFolder()
  const precious = join(folder, 'precious')
  writeFileSync(precious, 'mine\n')
  symlinkSync(precious, join(folder, 'cpu.lock'))
  await expect(takeDeviceLock('cpu', () => {}, undefined, folder)).rejects.toThrow(/cpu\.lock: expected a lock, found a symbolic link/)
  expect(readFileSync(precious, 'utf8')).toBe('mine\n')
})

it('says what to install where there is no flock, and where the folder cannot be used', () => {
  const folder = tempFolder()
  vi.stubEnv('PATH', '/nonexistent')
  onTestFinished(() => void vi.unstubAllEnvs())
  expect(() => takeRunLock(folder)).toThrow(EnvironmentError)
  expect(() => takeRunLock(folder)).toThrow(/install util-linux/)
  writeFileSync(join(folder, 'file'), '')
  expect(() => takeRunLock(join(folder, 'file'))).toThrow(/ENOTDIR/)
})
