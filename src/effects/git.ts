/** Runs git for us and nobody else: no hook, filter, signature or user setting takes part, and failures are one clear line. */
import { statfsSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { GitError, type SimpleGit, simpleGit } from 'simple-git'
import { EnvironmentError, TemporaryError, ToolError, UsageError } from '../errors.ts'
import { machineError } from '../machine-error.ts'

export interface Git {
  /** What git wrote on stdout. An exit 1 that says nothing (a missing ref, an empty list) is ''. */
  run(args: string[], input?: string): Promise<string>
  /** The same, byte for byte. */
  bytes(args: string[]): Promise<string>
}

// Everything in a user's configuration that could run a program, rewrite bytes or ask for a person.
const OURS = [
  'user.name=autokernel', // for the reflog; a machine without user.name works too
  'user.email=autokernel@localhost',
  'commit.gpgsign=false',
  'core.hooksPath=/dev/null',
  'core.fsmonitor=false',
  'core.autocrlf=false',
  'core.eol=lf',
  'core.attributesFile=/dev/null',
  'submodule.recurse=false',
  'worktree.useRelativePaths=false', // would set an extension in the user's .git/config
  'core.fsync=reference', // as an ordinary commit: without it fast-import waits for a pack that it unpacks and deletes
  'gc.auto=0',
  'maintenance.auto=false',
]

const FULL_BYTES = 1 << 20
const LOCKED_MS = 3_000 // an editor's `git status` in the run's worktree takes its index for milliseconds, again and again
const SILENCE_MS = 120_000 // a worktree of a very large repository on a network disk takes a while

/** `gitDir`: where it must be told, since a folder that has lost its .git belongs to whatever repository lies around it. */
export function gitIn(folder: string, config: string[] = [], gitDir: string | null = null): Git {
  const where = gitDir === null ? [] : [`--git-dir=${gitDir}`, `--work-tree=${folder}`]
  const open = (input?: string): SimpleGit =>
    simpleGit({
      baseDir: folder,
      config: [...OURS, ...config],
      timeout: { block: SILENCE_MS },
      // One that was killed has no exit code, and by itself simple-git takes that for a success.
      errors: (error, { exitCode }) => (error || typeof exitCode === 'number' ? error : new Error('git was killed')),
      unsafe: { allowUnsafeHooksPath: true, allowUnsafeFsMonitor: true, allowUnsafeFilter: true, allowUnsafeConfigPaths: true },
      ...(input === undefined ? {} : { input: () => input }),
    }).env(plainEnv())
  const guarded = async <T>(args: string[], work: () => Promise<T>): Promise<T> => {
    for (const until = performance.now() + LOCKED_MS; ; await pause(50)) {
      try {
        return await work()
      } catch (error) {
        if (lockedIndex(error) === null || performance.now() > until) throw explain(error, args, folder)
      }
    }
  }
  return {
    run: (args, input) => guarded(args, async () => await open(input).raw([...where, ...args])),
    bytes: (args) => guarded(args, async () => String(await open().binaryCatFile(args.slice(1)))),
  }
}

/** Settings that switch off every filter driver known here (Git LFS is one), so that a checkout runs no program. */
export async function withoutFilters(git: Git): Promise<string[]> {
  const keys = (await git.run(['config', '--null', '--name-only', '--get-regexp', '^filter\\.'])).split('\0')
  const drivers = new Set(keys.map((key) => /^filter\.([^=]+)\.[^.]+$/.exec(key)?.[1]).filter((name) => name !== undefined))
  return [...drivers].flatMap((name) => [
    `filter.${name}.smudge=`,
    `filter.${name}.clean=`,
    `filter.${name}.process=`,
    `filter.${name}.required=false`,
  ])
}

/** simple-git refuses an environment with GIT_* and editor keys, and one from a git hook would point us at another repository. */
function plainEnv(): Record<string, string> {
  const kept = Object.entries(process.env).filter(([key]) => !/^(git.*|editor|visual|pager|prefix|ssh_askpass)$/i.test(key))
  return { ...(Object.fromEntries(kept) as Record<string, string>), LC_ALL: 'C' } // LC_ALL: explain() reads messages
}

function spaceLeft(folder: string): number {
  const { bavail, bsize } = statfsSync(folder)
  return bavail * bsize
}

function lockedIndex(error: unknown): string | null {
  return /Unable to create '(.*index\.lock)': File exists/.exec(error instanceof GitError ? error.message : '')?.[1] ?? null
}

function explain(error: unknown, args: string[], folder: string): unknown {
  if (!(error instanceof GitError)) return error
  const text = error.message
  const line = (/^(?:fatal|error): (.*)$/m.exec(text)?.[1] ?? text.trim().split('\n')[0] ?? '').trim()
  const cause = { cause: error }

  if (text === 'git was killed') return new ToolError(`git ${args[0]} in ${folder} was killed by a signal`, cause)
  if (/spawn git ENOENT/.test(text)) return new EnvironmentError('git: expected on PATH, found none; install git 2.30 or newer', cause)
  const refused = /spawn git (E(?:AGAIN|MFILE|NFILE|NOMEM))/.exec(text)?.[1]
  if (refused) return machineError(Object.assign(error, { code: refused, path: 'git' }))
  const locked = lockedIndex(error)
  if (locked !== null) return new TemporaryError(`${locked}: another git has had it for ${LOCKED_MS / 1000} s; end it, and resume`, cause)
  if (/dubious ownership/.test(text)) {
    const owned = /repository at '([^']+)'/.exec(text)?.[1] ?? folder
    return new UsageError(
      `git refuses ${owned}, which another user owns; to trust it: git config --global --add safe.directory ${owned}`,
      cause,
    )
  }
  if (/not a git repository: '?[^(]*worktrees/.test(text))
    return new TemporaryError(`git ${args[0]}: git does not know ${folder} any more; resuming the run makes that worktree anew`, cause)
  if (/not a git repository/.test(text)) {
    return new UsageError(`${folder} is not in a git repository; run 'git init' there and commit the model, or use -C DIR`, cause)
  }
  if (/No space left on device|Out of diskspace|Disk quota exceeded/i.test(text))
    return new EnvironmentError(`git ${args[0]}: the disk is full: ${line}`, cause)
  // Of a file in a worktree git says only that, not why.
  if (/unable to (?:write|create) file/.test(text) && spaceLeft(folder) < FULL_BYTES)
    return new EnvironmentError(`git ${args[0]}: the disk is full: ${line}`, cause)
  if (/Permission denied|Read-only file system|insufficient permission|unable to create directory for/i.test(text)) {
    return new EnvironmentError(`git ${args[0]}: cannot write the repository of ${folder}: ${line}`, cause)
  }
  if (/block timeout reached/.test(text)) return new ToolError(`git ${args[0]} in ${folder} was silent for ${SILENCE_MS / 1000} s`, cause)
  return new ToolError(`git ${args.join(' ')} in ${folder}: ${line}`, cause)
}
