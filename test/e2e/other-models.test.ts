import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { modelSpeedup } from '../../src/core/report.ts'
import { Verification } from '../../src/schema.ts'
import { World } from '../support/world.ts'

const MINUTES = 60_000

describe('models that are not ours', () => {
  let world: World
  afterEach(() => world.remove())

  async function optimized(fixture: string, ...flags: string[]) {
    world = World.repository(`models/${fixture}`)
    const outcome = await world.autokernel('optimize', '--model', fixture, '--run', 'r', ...flags)
    expect(outcome, outcome.stderr).toMatchObject({ code: 0 })
    const ending = JSON.parse(readFileSync(join(world.folder, '.autokernel/runs/r/ending.json'), 'utf8'))
    return { outcome, ending, kernels: new Set(world.rows().map((row) => row.kernel)) }
  }

  it(
    'a naive five-op RMSNorm on the CPU ends faster, by the interval of verify',
    async (test) => {
      const { ending } = await optimized('naive_rmsnorm.py', '--max-experiments', '2')
      const verification = Verification.parse(ending.verification)
      expect(verification.verdict).toBe('pass')
      const gain = modelSpeedup(verification)
      if (gain === null) test.skip('every round was disturbed: this machine is too busy to measure on')
      expect(gain?.low).toBeGreaterThan(1)
    },
    10 * MINUTES,
  )

  it(
    'a KernelBench file with one softmax is optimized the same way',
    async () => {
      const { kernels } = await optimized('kernelbench_softmax.py', '--max-experiments', '2')
      expect([...kernels]).toEqual(['softmax'])
    },
    10 * MINUTES,
  )

  it(
    'RMSNorm and SwiGLU under other names are found by what they compute',
    async () => {
      const { kernels } = await optimized('other_names.py', '--max-experiments', '1', '--kernels', 'rmsnorm,fused_mlp')
      expect([...kernels].sort()).toEqual(['fused_mlp', 'rmsnorm'])
    },
    10 * MINUTES,
  )
})
