/** A run's control channel: a small file in its folder, to which commands append orders and which the daemon looks at. */
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs'
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
  close: () => void
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
export function openControl(path: string, urgent: (order: Order) => boolean): Control {
  try {
    writeFileSync(path, '')
  } catch (error) {
    throw cannotWrite(path, error)
  }
  let taken = 0
  let waiting: Order[] = []
  let deliver = (order: Order): void => void waiting.push(order)
  const refresh = (): void => {
    const all = contents(path)
    if (all === null) return
    const { orders, bytes } = whole(all, taken)
    taken = bytes
    for (const order of orders) if (!urgent(order)) deliver(order)
  }
  // By reading it again and again: an order may come from another host of a cluster, whose writes on a shared disk no
  // watcher sees; and a watcher that compares times misses a write that comes right after its own first look.
  const timer = setInterval(refresh, POLL_MS)
  return {
    listen: (take) => {
      deliver = take
      const before = waiting
      waiting = []
      for (const order of before) take(order)
    },
    close: () => clearInterval(timer),
  }
}

/** The orders in whole lines after the first `from` bytes; a line that is no order is passed over, since anybody may write here. */
function whole(all: Buffer, from: number): { orders: Order[]; bytes: number } {
  const start = all.length < from ? 0 : from // somebody emptied it
  const end = all.lastIndexOf(10) + 1
  const lines = all.subarray(start, Math.max(start, end)).toString('utf8').split('\n')
  return { orders: lines.flatMap((line) => parsed(line) ?? []), bytes: Math.max(start, end) }
}

/** Null when it cannot be read just now (no handles left, say): the next look will tell. */
function contents(path: string): Buffer | null {
  try {
    return readFileSync(path)
  } catch (error) {
    if (!(error instanceof Error && 'code' in error)) throw error
    return error.code === 'ENOENT' ? Buffer.alloc(0) : null // the next order makes it again
  }
}

function parsed(line: string): Order | null {
  try {
    return Order.safeParse(JSON.parse(line)).data ?? null
  } catch {
    return null
  }
}
