import { describe, expect, it } from 'vitest'
import { amdahl, planTargets } from '../../src/core/plan.ts'
import type { Profile, ProfileRow } from '../../src/schema.ts'

function row(op: string, share: number, changed: Partial<ProfileRow> = {}): ProfileRow {
  return {
    op,
    name: op,
    shape: [256, 1024],
    options: {},
    dtype: 'fp32',
    calls: 4,
    time_us: share * 1e6,
    share,
    bound: 'memory',
    limit_us: share * 5e5,
    amdahl: {},
    sites: [`m.${op}`],
    ...changed,
  }
}

function profile(rows: ProfileRow[]): Profile {
  const model = { file: 'm.py', class_name: null, input_shape: null, dtype: 'fp32' as const, device: 'cpu' as const, seed: 0 }
  return { format: 1, model, model_class: 'M', parameters: 1, device_name: 'cpu', torch: '2', total_us: 1e6, wall_us: 1e6, rows }
}

describe('the plan', () => {
  it('ranks by what a kernel can give the whole model, not by its share alone', () => {
    const atThePeak = row('linear', 0.5, { limit_us: 0.48e6 })
    const farBelow = row('rmsnorm', 0.2, { limit_us: 0.02e6 })
    expect(planTargets(profile([atThePeak, farBelow]), 'cpp', { kind: 'all' }).map((t) => t.name)).toEqual(['rmsnorm', 'linear'])
  })

  it('gathers the shapes of one operation, weighted by time and with their calls', () => {
    const [target] = planTargets(profile([row('rmsnorm', 0.03, { shape: [8, 8], calls: 2 }), row('rmsnorm', 0.09)]), 'cpp', { kind: 'all' })
    expect(target).toMatchObject({
      name: 'rmsnorm',
      shapes: [
        { shape: [256, 1024], weight: expect.closeTo(0.75, 9), calls: 4 },
        { shape: [8, 8], weight: expect.closeTo(0.25, 9), calls: 2 },
      ],
    })
    expect(target?.share).toBeCloseTo(0.12)
  })

  it('takes an operation that it finds no place for only when it is asked for by name', () => {
    const rows = profile([
      row('cross_entropy', 0.4, { sites: [] }),
      row('rmsnorm', 0.2),
      row('rmsnorm', 0.01, { sites: [], shape: [1, 2] }),
    ])
    expect(planTargets(rows, 'cpp', { kind: 'all' }).map((t) => t.name)).toEqual(['rmsnorm'])
    const named = planTargets(rows, 'cpp', { kind: 'named', names: ['cross_entropy', 'rmsnorm'] })
    expect(named.map((t) => [t.name, t.sites.length, t.shapes.length])).toEqual([
      ['cross_entropy', 0, 1],
      ['rmsnorm', 1, 1],
    ])
  })

  it('splits an operation when two of its shapes each hold a tenth of the model', () => {
    const rows = [
      row('linear', 0.3, { shape: [1, 2, 3] }),
      row('linear', 0.2, { shape: [4, 5, 6] }),
      row('linear', 0.02, { shape: [7, 8, 9] }),
    ]
    expect(planTargets(profile(rows), 'cpp', { kind: 'all' }).map((t) => [t.name, t.shapes.length])).toEqual([
      ['linear-1', 1],
      ['linear-2', 1],
      ['linear-3', 1],
    ])
  })

  it.each([
    ['other', row('other', 0.5)],
    ['what cannot be replaced', row('matmul', 0.5, { sites: [] })],
    ['a dtype that no kernel has', row('softmax', 0.5, { dtype: 'fp64' })],
    ['what is too small to matter', row('softmax', 0.001)],
  ])('leaves out %s', (_, left) => {
    expect(planTargets(profile([left]), 'cpp', { kind: 'all' })).toEqual([])
  })

  it('takes the first N, or the named ones by target or operation', () => {
    const rows = profile([row('rmsnorm', 0.3), row('softmax', 0.2), row('reduce', 0.1)])
    expect(planTargets(rows, 'cpp', { kind: 'top', count: 2 })).toHaveLength(2)
    expect(planTargets(rows, 'cpp', { kind: 'named', names: ['reduce'] }).map((t) => t.name)).toEqual(['reduce'])
  })
})

it.each([
  [0.6, 1.5, 1.25],
  [0.05, 1.5, 1.017],
  [1, 2, 2],
])('Amdahl: %f of the time made %f times faster gives %f', (share, speedup, whole) => {
  expect(amdahl(share, speedup)).toBeCloseTo(whole, 3)
})
