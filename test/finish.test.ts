/** The end of a run: which kernels go into the model, and what REPORT.md says of it. The judge answers from a script. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Declined, type VerifyRequest } from '../src/effects/judge.ts'
import { finishRun } from '../src/finish.ts'
import { makeRunFolder } from '../src/run-folder.ts'
import type { Profile, Verification } from '../src/schema.ts'
import { fileHash, modelChange } from '../src/session-start.ts'
import type { Latency, State, TargetState } from '../src/types.ts'
import { device, run, sha, targetState } from './support/make.ts'
import { scratchFolder } from './support/scratch.ts'

const us = (value: number): Latency => ({ us: value, ci95: 0.1 })

/** A kernel that takes `now` us a call where the model takes `today` and plain PyTorch `eager`. */
function measured(name: string, now: number, eager: number): TargetState {
  const roofline = { bound: 'memory' as const, bytes: 1e6, flops: 1e6, limit_us: 1 }
  const baselines = { start: us(2 * now), eager: us(eager), vendor: null, compile: null, roofline, busy: false, shapes: [] }
  return { ...targetState(name), baselines, latency: us(now), visits: 1, keeps: 1, incumbent: sha(2) }
}

function profiled(today: Record<string, number>): Profile {
  const row = (op: string) => {
    const place = { op, name: op, shape: [256, 1024], options: {}, dtype: 'fp32', calls: 4, share: 0.2 }
    return { ...place, time_us: 4 * (today[op] ?? 0), bound: 'memory' as const, limit_us: 1, amdahl: {}, sites: [op] }
  }
  const model = { file: 'tiny.py', class_name: 'Tiny', input_shape: null, dtype: 'fp32' as const, device: 'cpu' as const, seed: 1 }
  const rows = Object.keys(today).map(row)
  return { format: 1, model, model_class: 'Tiny', parameters: 1, device_name: 'Test CPU', torch: '2.13.0', total_us: 1, wall_us: 1, rows }
}

/** A verification with this many times the original's speed, a little different from round to round. */
function verification(speedup: number, kernels: string[], changed: Partial<Verification> = {}): Verification {
  const round = (noise: number) => ({ order: [], ms: { original: [10], optimized: [(10 * noise) / speedup] }, disturbed: null })
  const used = kernels.map((kernel) => ({ kernel, sites: 2, used: true, detail: '' }))
  const error = { max_abs: 1e-6, normwise: 1e-7, allowed_normwise: 1e-6 }
  return { verdict: 'pass', detail: '', kernels: used, error, rounds: [1, 1.001, 0.999, 1].map(round), wall_s: 1, ...changed }
}

async function finish(
  targets: TargetState[],
  today: Record<string, number>,
  answer: (only: string[] | null) => Verification,
  modelChange: string | null = null,
) {
  const folder = makeRunFolder(await scratchFolder(), 'tiny-1')
  const commits: { active: string[]; why: string }[] = []
  const commitFiles = async (files: Record<string, string>, why: string) => {
    const { kernels } = JSON.parse(files['optimized/manifest.json'] ?? '')
    commits.push({ active: kernels.flatMap((k: { kernel: string; active: boolean }) => (k.active ? [k.kernel] : [])), why })
    return sha(3)
  }
  const names = targets.map((t) => t.target.name)
  const state: State = {
    run: { ...run(names), device, targets: Object.fromEntries(targets.map((t) => [t.target.name, t])) },
    paused: false,
    proposing: { asked: [], ready: [], repairs: [], waiting: null },
    judging: { phase: 'idle' },
  }
  const profile = profiled(today)
  const ending = await finishRun(state, {
    folder,
    repo: { branch: 'autokernel/tiny-1', commitFiles },
    judge: { verify: async ({ only }: VerifyRequest) => answer(only) },
    profile,
    model: profile.model,
    modelName: 'tiny.py (Tiny, fp32)',
    modelChange,
    sandbox: 'none',
    say: () => {},
    signal: new AbortController().signal,
  })
  return { ending, commits, report: readFileSync(folder.report, 'utf8') }
}

describe('the end of a run', () => {
  it('puts in what beats the model and plain PyTorch on the model’s shapes, and says in the first line what it gained', async () => {
    const targets = [measured('rmsnorm', 5, 20), measured('softmax', 15, 30), measured('layernorm', 15, 12)]
    const { commits, report } = await finish(targets, { rmsnorm: 20, softmax: 10, layernorm: 40 }, () => verification(1.25, ['rmsnorm']))
    expect(commits.map((c) => c.active)).toEqual([['rmsnorm']])
    expect(report.split('\n')[0]).toMatch(/^# tiny\.py \(Tiny, fp32\): 1\.2\d\dx faster \(95 % interval 1\.2\d\d to 1\.2\d\d\), verified$/)
    expect(report).toContain('`softmax`: 15.0 us a call; the model does it in 10.0 us today')
    expect(report).toContain('`layernorm`: 15.0 us a call; the model does it in 40.0 us today, plain PyTorch in 12.0 us')
    expect(report).toContain('git checkout autokernel/tiny-1 -- optimized')
  })

  it('leaves to the user what apply() has no place for, however fast', async () => {
    const loss = measured('cross_entropy', 5, 20)
    loss.target = { ...loss.target, sites: [] }
    const { ending, commits, report } = await finish([loss], { cross_entropy: 20 }, () => verification(1, []))
    expect([ending.admitted, commits]).toEqual([[], []])
    expect(report).toContain('`cross_entropy`: 5.0 us a call, 20.0 us in the model today, but apply() knows no way to put it in')
  })

  it('tries each kernel alone when all together are no gain, and leaves out the one that slows the model', async () => {
    const targets = [measured('rmsnorm', 5, 20), measured('softmax', 5, 20)]
    const answer = (only: string[] | null) => {
      if (only === null) return commitsSeen++ === 0 ? verification(0.9, ['rmsnorm', 'softmax']) : verification(1.1, ['rmsnorm'])
      return verification(only[0] === 'softmax' ? 0.8 : 1.1, only)
    }
    let commitsSeen = 0
    const { ending, commits, report } = await finish(targets, { rmsnorm: 20, softmax: 20 }, answer)
    expect(commits.map((c) => c.active)).toEqual([['rmsnorm', 'softmax'], ['rmsnorm']])
    expect(ending.admitted).toEqual(['rmsnorm'])
    expect(report).toContain('`softmax`: alone it makes the model 0.8')
    expect(report.split('\n')[0]).toContain('1.1')
  })

  it('does not try a single kernel twice', async () => {
    const asked: (string[] | null)[] = []
    const { ending } = await finish([measured('rmsnorm', 5, 20)], { rmsnorm: 20 }, (only) => {
      asked.push(only)
      return verification(0.9, ['rmsnorm'])
    })
    expect(asked).toEqual([null])
    expect(ending.admitted).toEqual([])
    expect(ending.leftOut).toMatchObject([{ kernel: 'rmsnorm', why: expect.stringMatching(/^alone it makes the model 0\.9/) }])
  })

  it('leaves the model as it was when nothing beats it, and says so', async () => {
    const { commits, report } = await finish([measured('rmsnorm', 25, 20)], { rmsnorm: 20 }, () => verification(1, []))
    expect(commits).toEqual([])
    expect(report.split('\n')[0]).toBe('# tiny.py (Tiny, fp32): no kernel beat what the model does today; it is unchanged')
    expect(report).toContain('there is nothing to verify')
  })

  it('says when the model that was proved is not the file that the run began with', async () => {
    const folder = await scratchFolder()
    const file = join(folder, 'tiny.py')
    writeFileSync(file, 'depth = 2\n')
    const start = { model: { ...profiled({}).model, file }, model_hash: fileHash(file) }
    expect(modelChange(start)).toBeNull()
    writeFileSync(file, 'depth = 3\n')
    expect(modelChange({ ...start, model_hash: null })).toBeNull()
    const change = modelChange(start)
    const { report } = await finish([measured('rmsnorm', 5, 20)], { rmsnorm: 20 }, () => verification(1.5, ['rmsnorm']), change)
    expect(report).toContain('## Whole model\n\nNote: tiny.py is not what it was when the run began')
    rmSync(file)
    expect(modelChange(start)).not.toBeNull()
  })

  it('warns in the first line when the outputs differ', async () => {
    const wrong = verification(1.5, ['rmsnorm'], { verdict: 'fail', detail: 'output 0: normwise error 0.3' })
    const { ending, report } = await finish([measured('rmsnorm', 5, 20)], { rmsnorm: 20 }, () => wrong)
    expect(ending.admitted).toEqual([])
    expect(report).toContain('`rmsnorm`: output 0: normwise error 0.3')
    expect(report.split('\n')[0]).not.toContain('faster')
  })

  it('still writes the report when the judge cannot verify, with its words and the kernels that were kept', async () => {
    const { ending, report } = await finish([measured('rmsnorm', 5, 20)], { rmsnorm: 20 }, () => {
      throw new Declined('the judge could not answer ‘verify’: the model needs 40 GB\nlog: judge.log')
    })
    expect(ending.verification).toBeNull()
    expect(report.split('\n')[0]).toMatch(/not verified \(the judge could not answer .*40 GB.*\); do not use rmsnorm before/)
    expect(report).toContain('| rmsnorm | 20.0 % | 10.0 | 5.0 | 2.00x |')
  })

  it('passes on what is a mistake of the program itself', async () => {
    const broken = finish([measured('rmsnorm', 5, 20)], { rmsnorm: 20 }, () => {
      throw new TypeError('undefined is not a function')
    })
    await expect(broken).rejects.toThrow(TypeError)
  })
})
