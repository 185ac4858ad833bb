/** What every command that measures needs: Python, the device, and the warm judge. */
import { join } from 'node:path'
import { detectDevice } from './effects/device.ts'
import { Judge } from './effects/judge.ts'
import { ensurePython } from './effects/python.ts'
import { deviceTurns } from './effects/turns.ts'
import type { Io } from './io.ts'
import type { Options } from './options.ts'
import { packageRoot } from './package-root.ts'
import type { Backend, DeviceKind, Dtype } from './schema.ts'

export type Room = { python: string; device: DeviceKind; dtype: Dtype; backend: Backend; sandbox: 'auto' | 'require' | 'none' }

export async function openRoom(options: Options, io: Io): Promise<Room> {
  const { python } = await ensurePython({ explicit: options.python ?? null, root: packageRoot, dev: false, log: io.say })
  const device = await detectDevice(python, options.device ?? 'auto')
  const own: Backend = device === 'cpu' ? 'cpp' : 'triton'
  return {
    python,
    device,
    dtype: options.dtype ?? (device === 'cpu' ? 'fp32' : 'bf16'),
    backend: options.backend === undefined || options.backend === 'auto' ? own : options.backend,
    sandbox: options.sandbox ?? 'auto',
  }
}

export function startJudge(room: Room, log: string, say: (line: string) => void, allowTf32 = false): Judge {
  return new Judge({
    python: room.python,
    script: join(packageRoot, 'bench', 'bench.py'),
    device: room.device,
    sandbox: room.sandbox,
    allowTf32,
    log,
    takeTurn: deviceTurns(room.device, say),
  })
}

/** Measures something on the device without the judge, in its turn. */
export async function inTurn<T>(room: Room, say: (line: string) => void, measure: () => Promise<T>): Promise<T> {
  const device = await deviceTurns(room.device, say)()
  try {
    return await measure()
  } finally {
    device.release()
  }
}
