import { cpus, totalmem } from 'node:os'
import { expect, it } from 'vitest'
import { childEnv } from '../../src/effects/child-env.ts'
import { hostFacts } from '../../src/effects/host.ts'

it('tells the processor, memory, load and disk of this machine', async () => {
  const host = await hostFacts('.')
  expect(host.cpu).toMatch(/\w/)
  expect(host.threads).toBe(cpus().length)
  expect(host.cores).toBeGreaterThanOrEqual(1)
  expect(host.memoryGb).toBeCloseTo(totalmem() / 1e9, 0)
  expect(host.freeMemoryGb).toBeLessThanOrEqual(host.memoryGb)
  expect(host.freeDiskGb).toBeGreaterThan(0)
  expect(host.load).toBeGreaterThanOrEqual(0)
})

it('hands to Python what it needs to compile and run, and no secret, whatever its name starts with', () => {
  const given = {
    PATH: '/bin',
    CUDA_HOME: '/cuda',
    HIP_VISIBLE_DEVICES: '0',
    OMP_NUM_THREADS: '2',
    TRITON_CACHE_DIR: '/t',
    LC_ALL: 'C',
    AUTOKERNEL_CACHE: '/c',
  }
  const secret = {
    ANTHROPIC_API_KEY: 'x',
    HF_TOKEN: 'x',
    CUDA_API_KEY: 'x',
    TORCH_SECRET: 'x',
    AWS_PROFILE: 'x',
    SSH_AUTH_SOCK: 'x',
    LD_PRELOAD: 'x',
  }
  expect(childEnv({ ...given, ...secret })).toEqual(given)
})
