/** autokernel logs: what a run has said, and with -f what it goes on to say. */
import { createReadStream, existsSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { lockOwner } from '../effects/lock.ts'
import { UsageError } from '../errors.ts'
import type { Io } from '../io.ts'
import type { Options } from '../options.ts'
import { findStarted } from '../run-folder.ts'

const LOOK_EVERY_MS = 500

export async function logs(name: string | undefined, options: Options, io: Io): Promise<number> {
  const folder = findStarted(io.cwd, name)
  if (!existsSync(folder.log)) throw new UsageError(`run ${folder.name} has no log; expected one at ${folder.log}`)
  if (io.json && options.follow) throw new UsageError('--json: one document cannot follow a run; leave out -f or --json')
  let shown = ''
  const copy = async (from: number): Promise<number> => {
    let at = from
    for await (const chunk of createReadStream(folder.log, { start: from }) as AsyncIterable<Buffer>) {
      at += chunk.length
      if (io.json) shown += chunk.toString('utf8')
      else process.stdout.write(chunk)
    }
    return at
  }
  let at = 0
  for (;;) {
    // Asked before the reading, so that the last words of a run that ends meanwhile are read as well.
    const running = options.follow === true && process.stdout.writable && lockOwner(folder.lock) !== null
    at = await copy(at)
    if (!running) break
    await grown(folder.log, at)
  }
  if (io.json) io.document({ run: folder.name, log: shown })
  return 0
}

/** Waits for more, but not for long: the run may have ended without another word. */
async function grown(file: string, than: number): Promise<void> {
  for (let looks = 0; looks < 4; looks++) {
    await sleep(LOOK_EVERY_MS)
    if ((await stat(file)).size > than) return
  }
}
