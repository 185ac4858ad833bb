import { spawn } from 'node:child_process'
import { appendFileSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it, onTestFinished, vi } from 'vitest'
import { type Control, type Order, openControl, sendOrder } from '../../src/effects/control.ts'
import { EnvironmentError } from '../../src/errors.ts'
import { tempFolder } from './temp.ts'

const CONTROL = new URL('../../src/effects/control.ts', import.meta.url).href

async function opened(path: string, urgent: (order: Order) => boolean = () => false): Promise<{ control: Control; taken: Order[] }> {
  const control = openControl(path, urgent)
  onTestFinished(() => control.close())
  return { control, taken: [] }
}

/** Another process that gives the order. */
async function elsewhere(path: string, orders: Order[]): Promise<void> {
  const script = `import { sendOrder } from ${JSON.stringify(CONTROL)}\nfor (const o of ${JSON.stringify(orders)}) sendOrder(${JSON.stringify(path)}, o)`
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], { stdio: 'inherit' })
  expect(await new Promise((resolve) => child.once('close', resolve))).toBe(0)
}

it('takes what another process orders, each once and in order', async () => {
  const path = join(tempFolder(), 'control.jsonl')
  const { control, taken } = await opened(path)
  control.listen((order) => taken.push(order))
  const orders: Order[] = [{ order: 'pause' }, { order: 'resume' }, { order: 'stop', now: false }]
  await elsewhere(path, orders)
  await vi.waitFor(() => expect(taken).toEqual(orders), 5000)
  await elsewhere(path, [{ order: 'pause' }])
  await vi.waitFor(() => expect(taken).toEqual([...orders, { order: 'pause' }]), 5000)
})

it('keeps orders that come before anybody listens, but hands on the urgent ones at once', async () => {
  const path = join(tempFolder(), 'control.jsonl')
  const urgent: Order[] = []
  const { control, taken } = await opened(path, (order) => order.order === 'stop' && order.now && urgent.push(order) > 0)
  sendOrder(path, { order: 'pause' })
  sendOrder(path, { order: 'stop', now: true })
  await vi.waitFor(() => expect(urgent).toEqual([{ order: 'stop', now: true }]), 5000)
  expect(taken).toEqual([])
  control.listen((order) => taken.push(order))
  expect(taken).toEqual([{ order: 'pause' }])
})

it('forgets what was ordered of an earlier process', async () => {
  const path = join(tempFolder(), 'control.jsonl')
  sendOrder(path, { order: 'stop', now: true })
  const { control, taken } = await opened(path)
  control.listen((order) => taken.push(order))
  sendOrder(path, { order: 'resume' })
  await vi.waitFor(() => expect(taken).toEqual([{ order: 'resume' }]), 5000)
})

it('passes over what is no order, and waits for the rest of half a line', async () => {
  const path = join(tempFolder(), 'control.jsonl')
  const { control, taken } = await opened(path)
  control.listen((order) => taken.push(order))
  appendFileSync(path, 'not json\n{"order":"explode"}\n{"order":"stop"}\n\n{"order":"pa')
  sendOrder(join(tempFolder(), 'other'), { order: 'resume' })
  await new Promise((resolve) => setTimeout(resolve, 500))
  expect(taken).toEqual([])
  appendFileSync(path, 'use"}\n')
  await vi.waitFor(() => expect(taken).toEqual([{ order: 'pause' }]), 5000)
})

it('goes on after somebody emptied or removed the file', async () => {
  const path = join(tempFolder(), 'control.jsonl')
  const { control, taken } = await opened(path)
  control.listen((order) => taken.push(order))
  sendOrder(path, { order: 'stop', now: false })
  await vi.waitFor(() => expect(taken).toHaveLength(1), 5000)
  truncateSync(path)
  await new Promise((resolve) => setTimeout(resolve, 500))
  sendOrder(path, { order: 'pause' })
  await vi.waitFor(() => expect(taken).toHaveLength(2), 5000)
  rmSync(path)
  await new Promise((resolve) => setTimeout(resolve, 500))
  sendOrder(path, { order: 'resume' })
  await vi.waitFor(() => expect(taken.map(({ order }) => order)).toEqual(['stop', 'pause', 'resume']), 5000)
})

it('says in one line that the folder cannot be written', async () => {
  const path = join(tempFolder(), 'control.jsonl')
  writeFileSync(path, '')
  expect(readFileSync(path, 'utf8')).toBe('')
  expect(() => sendOrder('/proc/control.jsonl', { order: 'pause' })).toThrow(/control\.jsonl/)
  expect(() => openControl('/proc/sys/kernel/ostype', () => false)).toThrow(EnvironmentError)
})
