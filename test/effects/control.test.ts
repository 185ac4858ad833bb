/** Orders to a run: each arrives once, and none that its sender was told is delivered is lost between two owners. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, rmSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { expect, it, onTestFinished, vi } from 'vitest'
import { type Control, type Order, openControl, type Place, sendOrder, takeRun } from '../../src/effects/control.ts'
import { lockOwner, takeRunLock } from '../../src/effects/lock.ts'
import { EnvironmentError, TemporaryError } from '../../src/errors.ts'
import { tempFolder } from './temp.ts'

const CONTROL = new URL('../../src/effects/control.ts', import.meta.url).href
const ME = String(process.pid)

function place(): Place {
  const root = tempFolder()
  return { root, control: join(root, 'control.jsonl'), lock: join(root, 'lock') }
}

function opened(at: Place, urgent: (order: Order) => boolean = () => false): { control: Control; taken: Order[] } {
  const lock = takeRun(at)
  const control = openControl(at.control, urgent)
  onTestFinished(() => {
    control.close()
    lock.release()
  })
  return { control, taken: [] }
}

/** Another process that runs a few lines of code with the functions of control.ts. */
function elsewhere(code: string) {
  const script = `import { openControl, sendOrder, takeRun } from ${JSON.stringify(CONTROL)}\n${code}`
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], { stdio: ['pipe', 'pipe', 'inherit'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  return child
}

async function sentElsewhere(at: Place, orders: Order[]): Promise<void> {
  const child = elsewhere(`for (const o of ${JSON.stringify(orders)}) sendOrder(${JSON.stringify(at)}, o)`)
  expect(await once(child, 'close')).toEqual([0, null])
}

it('takes what another process orders, each once and in order', async () => {
  const at = place()
  const { control, taken } = opened(at)
  control.listen((order) => taken.push(order))
  const orders: Order[] = [{ order: 'pause' }, { order: 'resume' }, { order: 'stop', now: false }]
  await sentElsewhere(at, orders)
  await vi.waitFor(() => expect(taken).toEqual(orders), 5000)
  await sentElsewhere(at, [{ order: 'pause' }])
  await vi.waitFor(() => expect(taken).toEqual([...orders, { order: 'pause' }]), 5000)
})

it('loses no order that is given in the very moment in which a run gets its owner', async () => {
  const at = place()
  const rounds = 3
  const owner = elsewhere(`
    import fs from 'node:fs'
    import { syncBuiltinESMExports } from 'node:module'
    import { createInterface } from 'node:readline'
    const write = fs.writeFileSync // of a slow disk, so that the moment is long
    fs.writeFileSync = (...args) => void (Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500), write(...args))
    syncBuiltinESMExports()
    for await (const _ of createInterface(process.stdin)) {
      const lock = takeRun(${JSON.stringify(at)})
      const control = openControl(${JSON.stringify(at.control)}, () => false)
      const order = await new Promise((resolve) => {
        control.listen(({ order }) => resolve(order))
        setTimeout(resolve, 2000, 'nothing')
      })
      control.close()
      lock.release()
      console.log(order)
    }`)
  const heard = createInterface(owner.stdout)[Symbol.asyncIterator]()
  const took: string[] = []
  for (let round = 0; round < rounds; round++) {
    owner.stdin.write('\n')
    await vi.waitUntil(() => lockOwner(at.lock) !== null, { timeout: 10_000, interval: 10 })
    expect(sendOrder(at, { order: 'pause' })).toBe(String(owner.pid))
    took.push((await heard.next()).value)
  }
  owner.stdin.end()
  expect(took).toEqual(Array(rounds).fill('pause'))
}, 60_000)

it('refuses an order that nobody is there to take', () => {
  const at = place()
  takeRun(at).release()
  expect(() => sendOrder(at, { order: 'pause' })).toThrow(TemporaryError)
  const lock = takeRunLock(at.root, 'autokernel verify')
  expect(() => sendOrder(at, { order: 'pause' })).toThrow(
    `process ${ME} (autokernel verify) is at ${at.root} just now, and takes no orders`,
  )
  expect(() => takeRun(at)).toThrow(`in use by process ${ME} (autokernel verify);`)
  lock.release()
})

it('has one owner, and whoever comes second takes none of its orders away', async () => {
  const at = place()
  const { control, taken } = opened(at)
  sendOrder(at, { order: 'pause' })
  expect(() => takeRun(at)).toThrow(`in use by process ${ME};`)
  control.listen((order) => taken.push(order))
  await vi.waitFor(() => expect(taken).toEqual([{ order: 'pause' }]), 5000)
})

it('keeps orders that come before anybody listens, but hands on the urgent ones at once', async () => {
  const at = place()
  const urgent: Order[] = []
  const { control, taken } = opened(at, (order) => order.order === 'stop' && order.now && urgent.push(order) > 0)
  sendOrder(at, { order: 'pause' })
  sendOrder(at, { order: 'stop', now: true })
  await vi.waitFor(() => expect(urgent).toEqual([{ order: 'stop', now: true }]), 5000)
  expect(taken).toEqual([])
  control.listen((order) => taken.push(order))
  expect(taken).toEqual([{ order: 'pause' }])
})

it('forgets what was ordered of an earlier process', async () => {
  const at = place()
  const dead = takeRun(at)
  sendOrder(at, { order: 'stop', now: true })
  dead.release()
  const { control, taken } = opened(at)
  control.listen((order) => taken.push(order))
  sendOrder(at, { order: 'resume' })
  await vi.waitFor(() => expect(taken).toEqual([{ order: 'resume' }]), 5000)
})

it('passes over what is no order, and waits for the rest of half a line', async () => {
  const at = place()
  const { control, taken } = opened(at)
  control.listen((order) => taken.push(order))
  appendFileSync(at.control, 'not json\n{"order":"explode"}\n{"order":"stop"}\n\n{"order":"pa')
  await new Promise((resolve) => setTimeout(resolve, 500))
  expect(taken).toEqual([])
  appendFileSync(at.control, 'use"}\n')
  await vi.waitFor(() => expect(taken).toEqual([{ order: 'pause' }]), 5000)
})

it('goes on after somebody emptied or removed the file', async () => {
  const at = place()
  const { control, taken } = opened(at)
  control.listen((order) => taken.push(order))
  sendOrder(at, { order: 'stop', now: false })
  await vi.waitFor(() => expect(taken).toHaveLength(1), 5000)
  truncateSync(at.control)
  await new Promise((resolve) => setTimeout(resolve, 500))
  sendOrder(at, { order: 'pause' })
  await vi.waitFor(() => expect(taken).toHaveLength(2), 5000)
  rmSync(at.control)
  await new Promise((resolve) => setTimeout(resolve, 500))
  sendOrder(at, { order: 'resume' })
  await vi.waitFor(() => expect(taken.map(({ order }) => order)).toEqual(['stop', 'pause', 'resume']), 5000)
})

it('says in one line that the folder cannot be written', () => {
  const nowhere = { root: '/proc', control: '/proc/control.jsonl', lock: '/proc/lock' }
  expect(() => sendOrder(nowhere, { order: 'pause' })).toThrow(/control\.jsonl/)
  expect(() => takeRun({ ...place(), control: '/proc/sys/kernel/ostype' })).toThrow(EnvironmentError)
})
