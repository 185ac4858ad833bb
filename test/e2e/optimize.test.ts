import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Outcome, World } from '../support/world.ts'

const MINUTES = 60_000
const WHOLE = process.env.AUTOKERNEL_E2E === 'whole'
const EXPERIMENTS = WHOLE ? 12 : 3
const KERNELS = WHOLE ? [] : ['--kernels', 'rotary_embedding']

describe(`optimize --model llama.py --max-experiments ${EXPERIMENTS}`, () => {
  const world = World.repository('models/naive_rmsnorm.py')
  let outcome: Outcome
  let before: string
  beforeAll(async () => {
    before = world.git('status', '--porcelain', '--untracked-files=no') + world.git('rev-parse', 'HEAD', 'main')
    outcome = await world.autokernel('optimize', '--model', 'llama.py', '--max-experiments', `${EXPERIMENTS}`, '--run', 'night', ...KERNELS)
  }, 20 * MINUTES)
  afterAll(() => world.remove())

  const experiments = () => world.rows().filter((row) => row.experiment !== '0')

  it('ends with exit 0 and says what the model gained', () => {
    expect(outcome, outcome.stderr).toMatchObject({ code: 0 })
    expect(outcome.stdout).toMatch(/^llama\.py \(Llama, fp32\): /)
  })

  it('writes every experiment after the baselines, each once', () => {
    expect(experiments().map((row) => Number(row.experiment))).toEqual(Array.from({ length: EXPERIMENTS }, (_, i) => i + 1))
    expect(world.rows().filter((row) => row.status === 'baseline').length).toBeGreaterThanOrEqual(2)
  })

  it('shows in git log only what was kept, each faster than its parent by its own numbers', () => {
    const kept = experiments().filter((row) => row.status === 'keep')
    const messages = world
      .git('log', '--format=%B%x00', 'main..autokernel/night')
      .split('\0')
      .filter((m) => m.includes('Autokernel-Experiment'))
    expect(messages.map((m) => Number(/Autokernel-Experiment: (\d+)/.exec(m)?.[1])).reverse()).toEqual(
      kept.map((row) => Number(row.experiment)),
    )
    for (const message of messages) {
      expect(Number(/at least ([\d.]+)\)/.exec(message)?.[1])).toBeGreaterThan(1.01)
      expect(message).toMatch(/^perf\([a-z_]+(-\d+)?\): .+ us\)$/m)
    }
  })

  it('keeps every candidate under its ref and leaves the branch with what was kept', () => {
    const judged = experiments().filter((row) => row.commit !== null)
    expect(world.git('for-each-ref', '--format=%(refname)', 'refs/autokernel/night').split('\n')).toHaveLength(judged.length)
    expect(world.git('show', 'autokernel/night:optimized/__init__.py')).toContain('def apply')
  })

  it('leaves the branch, the index and the files of the user untouched', () => {
    expect(world.git('status', '--porcelain', '--untracked-files=no') + world.git('rev-parse', 'HEAD', 'main')).toBe(before)
    expect(world.git('status', '--porcelain').split('\n').filter(Boolean)).toEqual(['?? results.tsv'])
  })

  it('proves the whole model: correct, every kernel really used', () => {
    const ending = JSON.parse(readFileSync(join(world.folder, '.autokernel/runs/night/ending.json'), 'utf8'))
    expect(ending.unverified).toBeNull()
    expect(ending.admitted).toContain('rotary_embedding') // one fused pass in place of seven
    expect(ending.verification).toMatchObject({ verdict: 'pass' })
    for (const kernel of ending.verification.kernels) expect(kernel).toMatchObject({ used: true })
    expect(readFileSync(join(world.folder, '.autokernel/runs/night/REPORT.md'), 'utf8').split('\n')[0]).toMatch(
      /^# llama\.py \(Llama, fp32\): (.*95 % interval|verified correct; its speed could not be measured)/,
    )
  })

  it(
    'answers status, results, show, diff, report and verify about it',
    async () => {
      expect(JSON.parse((await world.autokernel('status', '--json')).stdout)).toMatchObject({
        run: 'night',
        phase: 'finished',
        experiments: EXPERIMENTS,
      })
      expect((await world.autokernel('results')).stdout.split('\n').length).toBe(world.rows().length + 1)
      expect((await world.autokernel('show', '1')).stdout).toMatch(/^experiment 1: /)
      expect((await world.autokernel('diff', '1')).stdout).toMatch(/^diff --git a\/optimized\//)
      expect((await world.autokernel('report')).stdout).toMatch(/## How it was measured/)
    },
    MINUTES,
  )

  it(
    'works a second time in the same folder',
    async () => {
      const again = await world.autokernel(
        'optimize',
        '--model',
        'naive_rmsnorm.py',
        '--max-experiments',
        '1',
        '--sweep',
        '1',
        '--run',
        'second',
      )
      expect(again, again.stderr).toMatchObject({ code: 0 })
      expect(world.rows().filter((row) => row.run === 'second' && row.experiment === '1')).toHaveLength(1)
      expect(existsSync(join(world.folder, '.autokernel/runs/second/REPORT.md'))).toBe(true)
    },
    10 * MINUTES,
  )
})
