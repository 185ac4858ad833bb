/** autokernel verify: the whole model of a run again, original against optimized, in fresh processes. */
import { modelSpeedup } from '../core/report.ts'
import { readJournal } from '../effects/journal.ts'
import { takeRunLock } from '../effects/lock.ts'
import { RunRepo } from '../effects/repo.ts'
import { findRepository } from '../effects/repository.ts'
import type { Io } from '../io.ts'
import { openRoom, startJudge } from '../machine-room.ts'
import type { Options } from '../options.ts'
import { findRun } from '../run-folder.ts'
import { modelChange, startOf } from '../session-start.ts'

const ROUNDS = 7

export async function verify(name: string | undefined, options: Options, io: Io): Promise<number> {
  const folder = findRun(io.cwd, name)
  const { header } = await readJournal(folder.events)
  const start = startOf(header, folder)
  const room = { ...start.room, python: (await openRoom({ ...options, device: start.room.device }, io)).python }
  const lock = takeRunLock(folder.root, 'autokernel verify') // a run that is going on moves the worktree under us
  await RunRepo.open(await findRepository(io.cwd), folder.name, folder.worktree, null)
  const judge = startJudge(room, folder.judgeLog, io.say, start.allow_tf32)
  try {
    io.say(`verifying ${folder.name}: original against optimized, ${ROUNDS} pairs of fresh processes ...`)
    const change = modelChange(start)
    if (change) io.say(`note: ${change}`)
    const verification = await judge.verify({
      model: start.model,
      optimized: folder.worktree,
      only: null,
      rounds: ROUNDS,
      nan_probe: true,
      compile: true,
    })
    const gain = modelSpeedup(verification)
    const compiled = modelSpeedup(verification, 'compile')
    if (io.json) io.document({ run: folder.name, ...verification, model_change: change, speedup: gain, compile_speedup: compiled })
    else {
      io.print(
        `${folder.name}: ${verification.verdict === 'nothing' ? 'nothing to verify: the run put no kernel into the model' : verification.verdict}${verification.detail ? ` (${verification.detail})` : ''}`,
      )
      for (const k of verification.kernels)
        io.print(`  ${k.kernel}: ${k.sites} places, ${k.used ? 'really used' : `NOT used (${k.detail})`}`)
      if (verification.error)
        io.print(
          `  ||e||/||ref|| ${verification.error.normwise.toPrecision(3)}, allowed ${verification.error.allowed_normwise.toPrecision(3)}`,
        )
      if (gain)
        io.print(
          `  whole model ${gain.point.toFixed(3)}x (95 % interval ${gain.low.toFixed(3)} to ${gain.high.toFixed(3)}, ${verification.rounds.length} pairs)`,
        )
      if (compiled) io.print(`  torch.compile beside it ${compiled.point.toFixed(3)}x`)
    }
    return verification.verdict === 'fail' ? 6 : 0
  } finally {
    await judge.close()
    lock.release()
  }
}
