/** autokernel bench: judges one file by hand and changes nothing. */
import { existsSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { benchReport, benchText, type Looked } from '../core/bench-report.ts'
import { dropFolder, scratchFolder } from '../effects/temporary.ts'
import { UsageError } from '../errors.ts'
import type { Io } from '../io.ts'
import { openRoom, startJudge } from '../machine-room.ts'
import type { Options } from '../options.ts'
import type { Side, Target } from '../schema.ts'

const ROUNDS = 5

export async function bench(file: string, options: Options, io: Io): Promise<number> {
  const path = existing(file, io.cwd, 'the kernel')
  const target = await askedTarget(path, options, io)
  const room = await openRoom(options, io)
  const scratch = scratchFolder('bench')
  const judge = startJudge(room, join(scratch, 'judge.log'), io.say, options['allow-tf32'])
  try {
    const hello = await judge.hello()
    if (!hello.ops.includes(target.op) && target.op_file === null)
      throw new UsageError(`--op: expected one of ${hello.ops.join(', ')}, got '${target.op}'`)
    const asked: Target = { ...target, dtype: room.dtype, backend: room.backend }
    const large = options.large ?? hello.device.kind !== 'cpu'
    const check = await judge.check(asked, path, { quick: options.quick ?? false, large })
    const timing = check.verdict === 'pass' ? await time(judge, asked, path, options, io) : null
    const passed = check.verdict === 'pass'
    const looked: Looked = {
      ...(passed && options.counters && { counters: await judge.counters(asked, path) }),
      ...(passed && options.sanitize && { sanitize: await judge.sanitize(asked, path) }),
    }
    // Without --shapes the judge times the operation's primary shape.
    const shapes = asked.shapes.length > 0 ? asked.shapes : [{ shape: [], options: {}, weight: 1, calls: 1 }]
    const report = benchReport(check, timing, shapes, hello.device, looked)
    if (io.json) io.document(report)
    else io.print(benchText(report))
    return report.verdict === 'pass' ? 0 : 5
  } finally {
    await judge.close()
    await dropFolder(scratch)
  }
}

async function time(judge: ReturnType<typeof startJudge>, target: Target, path: string, options: Options, io: Io) {
  const sides: Side[] = [
    { name: 'candidate', kind: 'file', path },
    { name: 'eager', kind: 'builtin', which: 'eager' },
  ]
  if (options.against !== undefined) sides.push({ name: 'incumbent', kind: 'file', path: existing(options.against, io.cwd, '--against') })
  if (options.quick) return judge.time(target, sides, 2)
  const all = await judge.time(target, [...sides, { name: 'vendor', kind: 'builtin', which: 'vendor' }], ROUNDS)
  return all.failure?.side === 'vendor' ? judge.time(target, sides, ROUNDS) : all
}

/** The operation comes from --op or --op-file, else from the file's own KERNEL_TYPE, which is only read, never run, here. */
async function askedTarget(path: string, options: Options, io: Io): Promise<Target> {
  const named = /^KERNEL_TYPE\s*=\s*['"]([a-z0-9_]+)['"]/m.exec(readFileSync(path, 'utf8'))?.[1]
  const opFile = options['op-file'] === undefined ? null : existing(options['op-file'], io.cwd, '--op-file')
  const op = options.op ?? named ?? (opFile ? 'custom' : undefined)
  if (op === undefined) throw new UsageError(`${path} does not say what it computes; add KERNEL_TYPE = "rmsnorm" to it, or pass --op`)
  const texts = options.shapes?.split(',') ?? []
  const shapes = texts.map((text) => {
    const shape = text.split('x').map(Number)
    if (!shape.every((n) => Number.isSafeInteger(n) && n > 0))
      throw new UsageError(`--shapes: expected rows x cols such as 4096x1024, got '${text}'`)
    return { shape, options: {}, weight: 1 / texts.length, calls: 1 }
  })
  return { name: op, op, op_file: opFile, dtype: options.dtype ?? 'fp32', backend: 'cpp', share: 1, shapes, sites: [] }
}

function existing(file: string, cwd: string, what: string): string {
  const path = resolve(cwd, file)
  if (!existsSync(path)) throw new UsageError(`${what}: expected a file, found nothing at ${path}`)
  return path
}
