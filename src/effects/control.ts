/** A run's control channel: a small file in its folder, to which commands append orders and which the daemon watches. */
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs'
import { watch } from 'chokidar'
import { z } from 'zod'
import { cannotWrite } from './files.ts'

export const Order = z.discriminatedUnion('order', [
  z.object({ order: z.literal('pause') }),
  z.object({ order: z.literal('resume') }),
  z.object({ order: z.literal('stop'), now: z.boolean() }),
])
export type Order = z.infer<typeof Order>

export type Control = {
  /** Each order once, in order; those that came before somebody listened come at once. */
  listen: (take: (order: Order) => void) => void
  close: () => Promise<void>
}

const POLL_MS = 200

export function sendOrder(path: string, order: Order): void {
  try {
    appendFileSync(path, `${JSON.stringify(order)}\n`) // one small write: orders given at the same time do not mix
  } catch (error) {
    throw cannotWrite(path, error)
  }
}

/** For the holder of the run's lock: orders that an earlier daemon did not live to take are forgotten. */
export async function openControl(path: string, urgent: (order: Order) => boolean): Promise<Control> {
  try {
    writeFileSync(path, '')
  } catch (error) {
    throw cannotWrite(path, error)
  }
  let taken = 0
  let waiting: Order[] = []
  let deliver = (order: Order): void => void waiting.push(order)
  const refresh = (): void => {
    const { orders, bytes } = whole(path, taken)
    taken = bytes
    for (const order of orders) if (!urgent(order)) deliver(order)
  }
  // By polling: an order may come from another host of a cluster, whose writes on a shared disk inotify does not see.
  const watcher = watch(path, { ignoreInitial: true, usePolling: true, interval: POLL_MS })
  watcher.on('all', refresh)
  await new Promise<void>((resolve, reject) => {
    watcher.once('ready', resolve)
    watcher.once('error', reject)
  })
  watcher.on('error', refresh)
  refresh() // what came before the watching began
  return {
    listen: (take) => {
      deliver = take
      const before = waiting
      waiting = []
      for (const order of before) take(order)
    },
    close: () => watcher.close(),
  }
}

/** The orders in whole lines after the first `from` bytes; a line that is no order is passed over, since anybody may write here. */
function whole(path: string, from: number): { orders: Order[]; bytes: number } {
  const all = contents(path)
  const start = all.length < from ? 0 : from // somebody emptied it
  const end = all.lastIndexOf(10) + 1
  const lines = all.subarray(start, Math.max(start, end)).toString('utf8').split('\n')
  return { orders: lines.flatMap((line) => parsed(line) ?? []), bytes: Math.max(start, end) }
}

function contents(path: string): Buffer {
  try {
    return readFileSync(path)
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return Buffer.alloc(0) // the next order makes it again
    throw error
  }
}

function parsed(line: string): Order | null {
  try {
    return Order.safeParse(JSON.parse(line)).data ?? null
  } catch {
    return null
  }
}
