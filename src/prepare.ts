/** A new run: profile the model, plan its kernels, commit their starting points. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { planTargets, type Selection } from './core/plan.ts'
import { writeAtomically } from './effects/files.ts'
import type { RunRepo } from './effects/repo.ts'
import { UsageError } from './errors.ts'
import { manifest, supportFiles } from './export.ts'
import { packageRoot } from './package-root.ts'
import type { RunFolder } from './run-folder.ts'
import type { Backend, Hello, Profile, Target } from './schema.ts'
import type { Rules, Run, TargetState } from './types.ts'

export function selectTargets(profile: Profile, backend: Backend, kernels: string | undefined): Target[] {
  const every = planTargets(profile, backend, { kind: 'all' })
  if (kernels === undefined) {
    if (every.length > 0) return every
    throw new UsageError('the model has no operation that a kernel could replace; autokernel profile shows what it spends its time on')
  }
  const selection = parseSelection(kernels)
  const chosen = planTargets(profile, backend, selection)
  if (selection.kind === 'named') {
    const unknown = selection.names.find((name) => !chosen.some((t) => t.name === name || t.op === name))
    if (unknown)
      throw new UsageError(`--kernels: the model has no kernel '${unknown}'; it has ${every.map((t) => t.name).join(', ') || 'none'}`)
  }
  return chosen
}

export function parseSelection(text: string): Selection {
  const top = /^top:(\d+)$/.exec(text)
  if (top && Number(top[1]) > 0) return { kind: 'top', count: Number(top[1]) }
  const names = text.split(',').map((name) => name.trim())
  if (names.some((name) => !/^[a-z][a-z0-9_-]*$/.test(name)))
    throw new UsageError(`--kernels: expected names with commas or top:N, got '${text}'`)
  return { kind: 'named', names }
}

/** The file that a target starts from; the device's language first, then any other that can run there. */
export function starterFile(op: string, backend: Backend): string {
  const file = join(packageRoot, 'kernels', op, `starter_${backend === 'hip' ? 'cuda' : backend}.py`)
  if (!existsSync(file)) throw new UsageError(`there is no starting kernel for ${op} in ${backend}; choose another --backend`)
  return file
}

/** The run's first commit: every starting kernel, the plan, and what makes optimized/ importable. */
export async function commitStart(
  repo: RunRepo,
  folder: RunFolder,
  profile: Profile,
  targets: Target[],
  hello: Hello,
  rules: Rules,
  wall: string,
): Promise<Run> {
  // On the disk before the journal is: a run that can be resumed needs its profile at the end.
  await writeAtomically(folder.profile, `${JSON.stringify(profile, null, 2)}\n`)
  await writeAtomically(folder.plan, `${JSON.stringify(targets, null, 2)}\n`)
  const kernels = Object.fromEntries(
    targets.map((t) => [`optimized/${t.name}/kernel.py`, readFileSync(starterFile(t.op, t.backend), 'utf8')]),
  )
  const plan = { 'optimized/plan.json': `${JSON.stringify(targets, null, 2)}\n`, 'optimized/manifest.json': manifest(targets, []) }
  const shares = targets.map(
    (t) =>
      `- ${t.name}: ${(100 * t.share).toFixed(1)} % of the time, ${t.shapes.length} ${t.shapes.length === 1 ? 'shape' : 'shapes'}, ${t.dtype}`,
  )
  const message = `autokernel: starting kernels and plan of run ${folder.name}\n\n${shares.join('\n')}`
  const start = await repo.commitFiles({ ...supportFiles(), ...plan, ...kernels }, message, wall)
  const state = (target: Target): TargetState => ({
    target,
    startCommit: start,
    incumbent: start,
    baselines: null,
    latency: null,
    evidence: null,
    discardsInARow: 0,
    spentMs: 0,
    visits: 0,
    keeps: 0,
    attempts: [],
    left: null,
  })
  return {
    name: folder.name,
    rules,
    device: hello.device,
    judgeHash: hello.judge_hash,
    targets: Object.fromEntries(targets.map((t) => [t.name, state(t)])),
    order: targets.map((t) => t.name),
    current: null,
    best: start,
    experiments: 0,
    counted: 0,
    interrupted: 0,
    settledAt: wall,
    elapsedMs: 0,
    idleMs: 0,
    asks: 0,
    costUsd: 0,
    tokens: 0,
    turns: 0,
    dearest: { costUsd: 0, tokens: 0, turns: 0 },
    pace: { answerMs: null, verdictMs: null, sweepMs: null },
    sources: [],
    stop: null,
  }
}
