/** Runs on one device measure one after the other: each question to a judge waits for the device, and frees it again. */
import type { DeviceKind } from '../schema.ts'
import { type Lock, takeDeviceLock } from './lock.ts'

/** AUTOKERNEL_LOCKS: the folder of the locks, where containers share a device but not /tmp. */
export function deviceTurns(
  kind: DeviceKind,
  say: (line: string) => void,
  env: NodeJS.ProcessEnv = process.env,
): (signal?: AbortSignal) => Promise<Lock> {
  const visible = (kind === 'cuda' ? env.CUDA_VISIBLE_DEVICES : (env.HIP_VISIBLE_DEVICES ?? env.ROCR_VISIBLE_DEVICES)) || '0'
  const name = kind === 'cpu' ? 'cpu' : `${kind}-${visible.split(',')[0]}`
  let said = false
  const onWait = (owner: string): void => {
    if (!said) say(`waiting for the device, held by pid ${owner}; runs take turns`)
    said = true
  }
  return (signal) => takeDeviceLock(name, onWait, signal, env.AUTOKERNEL_LOCKS || undefined)
}
