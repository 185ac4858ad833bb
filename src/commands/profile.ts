/** autokernel profile: where a model spends its time. */
import { resolve } from 'node:path'
import { planTargets } from '../core/plan.ts'
import { profileModel } from '../effects/profiler.ts'
import { UsageError } from '../errors.ts'
import type { Io } from '../io.ts'
import { inTurn, openRoom } from '../machine-room.ts'
import type { Options } from '../options.ts'
import { findModel } from '../package-root.ts'
import { profileTable } from '../profile-table.ts'
import type { ModelSpec } from '../schema.ts'

export async function profile(options: Options, io: Io): Promise<number> {
  if (options.model === undefined) throw new UsageError('--model: expected a Python file with a PyTorch model, such as --model llama.py')
  const { file, className } = findModel(options.model, io.cwd)
  const room = await openRoom(options, io)
  const model: ModelSpec = {
    file,
    class_name: options.class ?? className,
    input_shape: options['input-shape'] ?? null,
    dtype: room.dtype,
    device: room.device,
    seed: options.seed ?? 0,
  }
  const inFolder = (path: string | undefined) => path && resolve(io.cwd, path)
  const files = {
    trace: inFolder(options.trace),
    memorySnapshot: inFolder(options['memory-snapshot']),
    compileLog: inFolder(options['compile-log']),
  }
  const found = await inTurn(room, io.say, () => profileModel({ python: room.python, model, say: io.say, ...files }))
  if (io.json) io.document(found)
  else io.print(profileTable(found, planTargets(found, room.backend, { kind: 'all' })))
  return 0
}
