/** optimize --detach: the same command in a session of its own, which no terminal takes along when it closes. */
import { spawn } from 'node:child_process'
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs'
import { relative } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { lockOwner } from '../effects/lock.ts'
import { TemporaryError } from '../errors.ts'
import type { Io } from '../io.ts'
import { DETACHED } from '../log.ts'
import type { Options } from '../options.ts'
import { makeRunFolder, type RunFolder } from '../run-folder.ts'

const LOOK_EVERY_MS = 100
const LAST_LINES = 10

export async function detach({ name }: RunFolder, options: Options, io: Io): Promise<number> {
  const folder = makeRunFolder(io.cwd, name)
  const owner = lockOwner(folder.lock)
  if (owner !== null)
    throw new TemporaryError(`${folder.root} is in use by process ${owner}; wait for it, or end it with 'autokernel stop'`)
  const log = openSync(folder.log, 'a')
  const from = fstatSync(log).size
  const child = spawn(
    process.execPath,
    [...process.execArgv, process.argv[1] ?? '', ...sameCommand(process.argv.slice(2), name, options)],
    {
      detached: true, // setsid: a hang-up of this terminal does not reach it
      stdio: ['ignore', log, log],
      env: { ...io.env, [DETACHED]: '1' },
    },
  )
  closeSync(log)
  const ended = new Promise<number>((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code) => resolve(code ?? 1))
  })
  for (;;) {
    const code = await Promise.race([ended, sleep(LOOK_EVERY_MS)])
    if (code !== undefined) return early(folder, from, code, io)
    if (lockOwner(folder.lock) === String(child.pid)) break
  }
  child.unref()
  const where = relative(io.cwd, folder.log)
  if (io.json) io.document({ run: name, pid: child.pid, log: where })
  else {
    io.print(`${name} runs in the background (pid ${child.pid}); its log: ${where}`)
    io.print(`  autokernel status ${name}\n  autokernel logs ${name} -f\n  autokernel stop ${name}`)
  }
  return 0
}

function early(folder: RunFolder, from: number, code: number, io: Io): number {
  const words = readFileSync(folder.log).subarray(from).toString('utf8').trimEnd().split('\n').slice(-LAST_LINES)
  const text = [...words, `autokernel: ${folder.name} ended at once with exit code ${code}`].join('\n')
  if (io.json) io.document({ run: folder.name, pid: null, exit: code, last_words: words })
  else if (code === 0) io.print(text)
  else process.stderr.write(`${text}\n`)
  return code
}

/** The arguments as they were given, except that the run has its name now and the child stays where it is started. */
function sameCommand(args: string[], name: string, options: Options): string[] {
  const rest = args.filter((arg) => !/^--detach(=|$)/.test(arg) && (options.resume !== '' || !/^--resume=?$/.test(arg)))
  const named =
    options.resume === '' ? [`--resume=${name}`] : options.resume === undefined && options.run === undefined ? ['--run', name] : []
  return [...rest, ...named, '--no-detach']
}
