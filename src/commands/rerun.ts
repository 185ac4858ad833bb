/** autokernel rerun: an experiment's candidate judged again, beside its parent; whatever comes out, nothing is changed. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { targetOf } from '../core/edit.ts'
import { decide } from '../core/judge.ts'
import { firstLine } from '../core/record.ts'
import type { Judge } from '../effects/judge.ts'
import { lockOwner } from '../effects/lock.ts'
import { findRepository } from '../effects/repository.ts'
import { dropFolder, scratchFolder } from '../effects/temporary.ts'
import { UsageError } from '../errors.ts'
import type { Io } from '../io.ts'
import { openRoom, startJudge } from '../machine-room.ts'
import type { Options } from '../options.ts'
import type { Check, Round, Side, Target } from '../schema.ts'
import { startOf } from '../session-start.ts'
import type { Rules, Verdict } from '../types.ts'
import { attemptOf, openRun } from './look.ts'

type Again = { check: Check; rounds: Round[]; verdict: Verdict | null } // null: no verdict on speed, since it is not right

export async function rerun(text: string, options: Options, io: Io): Promise<number> {
  const { folder, header, state, events } = await openRun(options.run, io)
  const { attempt, kernel } = attemptOf(state, text)
  const committed = events.find((e) => e.type === 'committed' && e.number === attempt.experiment)
  if (committed?.type !== 'committed')
    throw new UsageError(`experiment ${attempt.experiment} has no commit: its answer could not be judged (${attempt.detail})`)
  if (lockOwner(folder.lock) !== null && !state.paused)
    throw new UsageError(
      `run ${folder.name} is measuring, and two at once would disturb each other; first: autokernel pause ${folder.name}`,
    )
  const start = startOf(header, folder)
  const { target } = targetOf(state.run, kernel)
  const { git } = await findRepository(io.cwd)
  const room = { ...start.room, python: (await openRoom({ ...options, device: start.room.device }, io)).python }
  const scratch = scratchFolder('rerun')
  const judge = startJudge({ ...room, sandbox: options.sandbox ?? room.sandbox }, join(scratch, 'judge.log'), io.say, start.allow_tf32)
  try {
    const side = async (name: string, commit: string): Promise<Side & { kind: 'file' }> => {
      const path = join(scratch, `${name}.py`)
      writeFileSync(path, await git.bytes(['cat-file', 'blob', `${commit}:optimized/${kernel}/kernel.py`]))
      return { name, kind: 'file', path }
    }
    const sides = { incumbent: await side('incumbent', `${committed.commit}^`), candidate: await side('candidate', committed.commit) }
    io.say(`judging experiment ${attempt.experiment} (${kernel}, then: ${attempt.outcome}) again ...`)
    const again = await judgeAgain(judge, target, sides, state.run.rules, state.run.device.kind !== 'cpu')
    const now = again.verdict === null ? again.check.verdict : outcomeOf(again.verdict)
    const gain = again.verdict?.gain ?? null
    if (io.json) {
      const then = { outcome: attempt.outcome, gain: attempt.gain }
      io.document({
        run: folder.name,
        experiment: attempt.experiment,
        kernel,
        then,
        outcome: now,
        gain,
        check: again.check,
        rounds: again.rounds,
      })
      return 0
    }
    const ratio = gain ? `, ${gain.point.toFixed(3)}x (${gain.low.toFixed(3)} to ${gain.high.toFixed(3)}) over its parent` : ''
    io.print(`experiment ${attempt.experiment}: ${kernel}, ${now}${ratio}, ${again.rounds.length} pairs of fresh processes`)
    io.print(`  then: ${attempt.outcome}${attempt.gain === null ? '' : `, ${attempt.gain.toFixed(3)}x`}`)
    const why = again.verdict === null ? again.check.detail : again.verdict.kind === 'keep' ? '' : again.verdict.detail
    if (why !== '') io.print(`  ${firstLine(why)}`)
    return 0
  } finally {
    await judge.close()
    await dropFolder(scratch)
  }
}

async function judgeAgain(
  judge: Judge,
  target: Target,
  sides: { incumbent: Side; candidate: Side & { kind: 'file' } },
  rules: Rules,
  large: boolean,
): Promise<Again> {
  const check = await judge.check(target, sides.candidate.path, { quick: false, large })
  const rounds: Round[] = []
  if (check.verdict !== 'pass') return { check, rounds, verdict: null }
  for (;;) {
    const decision = decide(rounds, target.shapes, rules)
    if (decision.kind === 'verdict') return { check, rounds, verdict: decision.verdict }
    const timing = await judge.time(target, [sides.incumbent, sides.candidate], decision.rounds)
    rounds.push(...timing.rounds)
    if (timing.failure === null) continue
    const { side, kind, detail } = timing.failure
    const why = side === 'candidate' && kind !== 'suspect' ? kind : 'interrupted'
    return { check, rounds, verdict: { kind: 'discard', why, gain: null, detail: `${side}: ${detail}` } }
  }
}

const outcomeOf = (verdict: Verdict): string => (verdict.kind === 'keep' ? 'keep' : verdict.why)
