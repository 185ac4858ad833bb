/** The end of a run: the kernels that beat what the model does today go in, and the whole model is proved. */

import { join } from 'node:path'
import { type Ending, modelSpeedup, reportText } from './core/report.ts'
import { writeAtomically } from './effects/files.ts'
import type { Judge } from './effects/judge.ts'
import type { RunRepo } from './effects/repo.ts'
import { ToolError } from './errors.ts'
import { manifest } from './export.ts'
import type { RunFolder } from './run-folder.ts'
import type { ModelSpec, Profile, Verification } from './schema.ts'
import type { State, TargetState } from './types.ts'

const SCOUT_ROUNDS = 5 // pairs per kernel when it must be found out which one slows the model
const FINAL_ROUNDS = 7

type Verify = (only: string[] | null, rounds: number, full: boolean) => Promise<Verification>

export type Finish = {
  folder: RunFolder
  repo: Pick<RunRepo, 'branch' | 'commitFiles'>
  judge: Pick<Judge, 'verify'>
  profile: Profile
  model: ModelSpec
  modelName: string
  modelChange: string | null // what has become of its file since the run began
  sandbox: string
  say: (text: string) => void
  signal: AbortSignal // cuts off what is being measured; then nothing is concluded
}

export async function finishRun(state: State, finish: Finish): Promise<Ending> {
  const { folder, repo, judge, model, say, signal } = finish
  const targets = Object.values(state.run.targets)
  const { worthy, leftOut } = admissible(targets, finish.profile)
  const plan = targets.map((t) => t.target)
  const activate = async (kernels: string[], why: string) =>
    repo.commitFiles({ 'optimized/manifest.json': manifest(plan, kernels) }, why, state.run.settledAt)
  const verify: Verify = (only, rounds, full) =>
    judge.verify({ model, optimized: folder.worktree, only, rounds, nan_probe: full, compile: full }, signal).catch((error: unknown) => {
      throw error instanceof ToolError && !signal.aborted ? new Unverified(error.message, { cause: error }) : error
    })

  let admitted = worthy
  let verification: Verification | null = null
  const prove = async () => {
    await activate(admitted, `autokernel: put ${admitted.join(', ')} into the model`)
    say(`verifying the whole model with ${admitted.join(', ')} ...`)
    verification = await verify(null, FINAL_ROUNDS, true)
    const harmful = await findHarmful(verification, admitted, verify, say)
    if (harmful.length === 0) return
    leftOut.push(...harmful)
    admitted = admitted.filter((kernel) => !harmful.some((h) => h.kernel === kernel))
    verification = null
    await activate(
      admitted,
      `autokernel: leave out what does not help; ${admitted.length > 0 ? `the model keeps ${admitted.join(', ')}` : 'the model stays as it was'}`,
    )
    if (admitted.length > 0) verification = await verify(null, FINAL_ROUNDS, true)
  }
  const unverified = admitted.length > 0 ? await prove().then(() => null, whyNot) : null
  const ending: Ending = {
    state,
    model: finish.modelName,
    modelChange: finish.modelChange,
    branch: repo.branch,
    admitted,
    leftOut,
    verification: unverified === null ? verification : null,
    unverified,
    sandbox: finish.sandbox,
  }
  const text = JSON.stringify({ admitted, leftOut, verification: ending.verification, unverified }, null, 2)
  await writeAtomically(join(folder.root, 'ending.json'), `${text}\n`)
  await writeAtomically(folder.report, reportText(ending)) // last: a run with a report is finished
  return ending
}

/** The judge could not; anything else that fails here ends the run, to be resumed. */
class Unverified extends Error {}

/** A judge that cannot verify leaves a report that says so; what the night measured is in it all the same. */
function whyNot(error: unknown): string {
  if (error instanceof Unverified) return error.message
  throw error
}

/** Kernels faster, call for call, than what the profile saw the model spend on the same shapes. */
function admissible(targets: TargetState[], profile: Profile): { worthy: string[]; leftOut: Ending['leftOut'] } {
  const worthy: string[] = []
  const leftOut: Ending['leftOut'] = []
  for (const { target, latency, baselines } of targets) {
    if (!latency || !baselines) continue
    const rows = profile.rows.filter(
      (row) => row.op === target.op && row.dtype === target.dtype && target.shapes.some((s) => String(s.shape) === String(row.shape)),
    )
    const today = rows.reduce((sum, row) => sum + row.time_us, 0) / rows.reduce((sum, row) => sum + row.calls, 0)
    const faster = latency.us < Math.min(today, baselines.eager.us)
    if (faster && target.sites.length > 0) worthy.push(target.name)
    else if (faster)
      leftOut.push({
        kernel: target.name,
        why: `${latency.us.toFixed(1)} us a call, ${today.toFixed(1)} us in the model today, but apply() knows no way to put it in: do it by hand`,
      })
    else
      leftOut.push({
        kernel: target.name,
        why: `${latency.us.toFixed(1)} us a call; the model does it in ${today.toFixed(1)} us today, plain PyTorch in ${baselines.eager.us.toFixed(1)} us`,
      })
  }
  return { worthy, leftOut }
}

/** Kernels that are not used, not right or a burden, and why. Each is tried alone only when all together are not clearly a gain. */
async function findHarmful(
  together: Verification,
  kernels: string[],
  verify: Verify,
  say: (text: string) => void,
): Promise<Ending['leftOut']> {
  const unused = together.kernels.filter((k) => !k.used)
  const harmful = unused.map((k) => ({ kernel: k.kernel, why: `not used by the model: ${k.detail}` }))
  const gain = modelSpeedup(together)
  if (together.verdict === 'pass' && gain !== null && gain.low > 1) return harmful
  for (const kernel of kernels.filter((name) => !unused.some((k) => k.kernel === name))) {
    if (kernels.length > 1) say(`trying ${kernel} alone ...`)
    const alone = kernels.length > 1 ? await verify([kernel], SCOUT_ROUNDS, false) : together
    const effect = modelSpeedup(alone)
    if (alone.verdict !== 'pass') harmful.push({ kernel, why: alone.detail })
    else if (effect && effect.high < 1) harmful.push({ kernel, why: `alone it makes the model ${effect.point.toFixed(3)}x` })
  }
  return harmful
}
