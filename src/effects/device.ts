/** Which device torch can use here: asked of torch itself, and only where a driver is there to be asked. */
import { existsSync } from 'node:fs'
import { execa } from 'execa'
import { EnvironmentError } from '../errors.ts'
import type { DeviceKind } from '../schema.ts'
import { childEnv } from './child-env.ts'

const NODES = ['/dev/nvidiactl', '/dev/kfd', '/dev/dxg'] // NVIDIA, AMD, and either of them under WSL
const QUESTION = 'import torch; ok = torch.cuda.is_available(); print("cpu" if not ok else "rocm" if torch.version.hip else "cuda")'

export async function detectDevice(python: string, wanted: DeviceKind | 'auto'): Promise<DeviceKind> {
  if (wanted === 'cpu') return 'cpu'
  const found = NODES.some((node) => existsSync(node)) ? await askTorch(python) : 'cpu'
  if (wanted === 'auto' || wanted === found) return found
  throw new EnvironmentError(
    `--device ${wanted}: expected a GPU that torch can use, found ${found === 'cpu' ? 'none' : `a ${found} device`}; check nvidia-smi or rocm-smi and that torch was built for it, or use --device cpu`,
  )
}

async function askTorch(python: string): Promise<DeviceKind> {
  const asked = await execa(python, ['-c', QUESTION], { reject: false, timeout: 120_000, extendEnv: false, env: childEnv() })
  const word = String(asked.stdout ?? '').trim()
  if (asked.exitCode === 0 && (word === 'cuda' || word === 'rocm' || word === 'cpu')) return word
  const last = String(asked.stderr ?? '')
    .trim()
    .split('\n')
    .at(-1)
  throw new EnvironmentError(
    `expected torch to say which device it can use, found: ${last || asked.shortMessage}; try ${python} -c 'import torch'`,
  )
}
