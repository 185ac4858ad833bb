/** A run's control channel: a small file in its folder, to which commands append orders and which the daemon looks at. */
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs'
import { z } from 'zod'
import { TemporaryError } from '../errors.ts'
import { cannotWrite } from './files.ts'
import { alone, type Lock, lockOwner, takeRunLock } from './lock.ts'

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

/** Where a run's orders and its owner are. */
export type Place = { root: string; control: string; lock: string }

/** To whoever owns the run now: its process id. */
export function sendOrder({ root, control, lock }: Place, order: Order): string {
  return alone(control, () => {
    const owner = lockOwner(lock)
    if (owner === null) throw new TemporaryError(`${root} was given up just now, and nobody takes orders for it; look: autokernel status`)
    if (!/^\d+$/.test(owner)) throw new TemporaryError(`process ${owner} is at ${root} just now, and takes no orders`)
    try {
      appendFileSync(control, `${JSON.stringify(order)}\n`)
    } catch (error) {
      throw cannotWrite(control, error)
    }
    return owner
  })
}

/**
 * One daemon per run. Orders that an earlier one did not live to take are forgotten, and none comes between: whoever gives
 * one finds either no owner, or one that will take it.
 */
export function takeRun({ root, control }: Place): Lock {
  return alone(control, () => {
    const lock = takeRunLock(root)
    try {
      writeFileSync(control, '')
    } catch (error) {
      lock.release()
      throw cannotWrite(control, error)
    }
    return lock
  })
}

/** For the holder of the run. */
export function openControl(path: string, urgent: (order: Order) => boolean): Control {
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
