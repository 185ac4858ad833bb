/** What a killed git leaves behind in a run's own corner of the repository, found and removed. A lock of anybody else is never touched. */
import { readdir, readFile, readlink, realpath, rm } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { TemporaryError } from '../errors.ts'

const BEGIN_MS = 1000 // git is through with it in milliseconds
const PATIENCE_MS = 30_000 // a git that outlived its daemon has milliseconds to go

/** The git folder of our linked worktree, null when git does not know it (any more) or it was removed. */
export async function worktreeGitDir(gitDir: string, worktree: string): Promise<string | null> {
  const link = await readFile(join(worktree, '.git'), 'utf8').catch(() => '')
  const own = /^gitdir: (.*)\n?$/.exec(link)?.[1]
  if (own === undefined) return null
  const whole = (await files(own)).length > 0 && (await readFile(join(own, 'gitdir'), 'utf8').catch(() => '')) !== ''
  const ours = (await realpath(dirname(dirname(own))).catch(() => '')) === (await realpath(gitDir))
  return whole && ours ? resolve(own) : null
}

/** Removes the worktree and git's entry for it, whatever state a kill left the two in. */
export async function forgetWorktree(gitDir: string, worktree: string): Promise<void> {
  const entries = join(gitDir, 'worktrees')
  for (const entry of await files(entries)) {
    const own = join(entries, entry)
    if (await begun(own, worktree)) await pause(BEGIN_MS) // another run may be making its own at this moment
    const points = (await pointsTo(own)).trim()
    if ((points !== '' && resolve(points) === join(worktree, '.git')) || (await begun(own, worktree)))
      await rm(own, { recursive: true, force: true })
  }
  await rm(worktree, { recursive: true, force: true })
}

/** Is this the entry of a `git worktree add` that died before it had written where the worktree is? git never prunes such a one. */
async function begun(own: string, worktree: string): Promise<boolean> {
  const named = new RegExp(`/${basename(worktree)}\\d*$`).test(own)
  const points = await pointsTo(own)
  return named && !points.endsWith('\n') && join(worktree, '.git').startsWith(points)
}

const pointsTo = (own: string): Promise<string> => readFile(join(own, 'gitdir'), 'utf8').catch(() => '')

/**
 * Under the run's lock: locks of git on the run's own refs and worktree are leftovers, unless a git that outlived its killed
 * daemon still works there; that one is waited for.
 */
export async function removeLocks(gitDir: string, run: string, folders: string[]): Promise<void> {
  const own = await worktreeGitDir(gitDir, folders.at(-1) ?? '')
  const places = [
    ...(own === null ? [] : (await files(own)).map((name) => join(own, name))),
    ...(own === null ? [] : (await files(join(own, 'refs', 'worktree'))).map((name) => join(own, 'refs', 'worktree', name))),
    join(gitDir, 'refs', 'heads', 'autokernel', `${run}.lock`),
    ...(await files(join(gitDir, 'refs', 'autokernel', run))).map((name) => join(gitDir, 'refs', 'autokernel', run, name)),
  ].filter((path) => path.endsWith('.lock'))
  const locks = (await Promise.all(places.map(async (path) => ((await readFile(path).catch(() => null)) === null ? [] : [path])))).flat()
  if (locks.length === 0) return
  const until = performance.now() + PATIENCE_MS
  for (let busy = await gitsIn(folders); busy.length > 0; busy = await gitsIn(folders)) {
    if (performance.now() > until)
      throw new TemporaryError(`git (process ${busy.join(', ')}) still works for this run; wait for it, or end it`)
    await pause(20)
  }
  for (const path of locks) await rm(path, { force: true })
}

/** Processes of git whose working folder is one of these and whose parent is gone; none where there is no /proc. */
async function gitsIn(folders: string[]): Promise<number[]> {
  const found: number[] = []
  for (const pid of (await files('/proc')).map(Number).filter(Number.isInteger)) {
    const [cwd, stat] = await Promise.all([
      readlink(`/proc/${pid}/cwd`).catch(() => ''),
      readFile(`/proc/${pid}/stat`, 'utf8').catch(() => ''),
    ])
    const [, name = '', state = '', parent = ''] = /^\d+ \((.*)\) (\w) (\d+)/s.exec(stat) ?? []
    if (folders.includes(cwd) && name.startsWith('git') && state !== 'Z' && Number(parent) !== process.pid) found.push(pid)
  }
  return found
}

async function files(folder: string): Promise<string[]> {
  return readdir(folder).catch(() => [])
}
