/** Finds the user's repository from a folder, and says in one line why a run cannot start there. */
import { realpath } from 'node:fs/promises'
import { resolve } from 'node:path'
import { UsageError } from '../errors.ts'
import { CommitSha } from '../schema.ts'
import { type Git, gitIn } from './git.ts'

export type Repository = {
  root: string // of the user's working tree
  gitDir: string // shared by all worktrees
  head: CommitSha
  git: Git
}

export async function findRepository(folder: string): Promise<Repository> {
  const from = await realpath(folder).catch((cause) => {
    throw new UsageError(`expected a folder, found nothing at ${folder}`, { cause })
  })
  const git = gitIn(from)
  const facts = (
    await git.run(['rev-parse', '--is-bare-repository', '--is-inside-work-tree', '--show-object-format', '--git-common-dir'])
  ).split('\n')
  const [bare, inside, format, common = '.git'] = facts
  if (bare === 'true') throw new UsageError(`${from} is a bare repository; clone it and start in the clone`)
  if (inside !== 'true') throw new UsageError(`${from} is inside .git; start in the working tree`)
  if (format !== 'sha1') throw new UsageError(`${from} uses ${format} object names; expected a repository with sha1 object names`)

  const head = (await git.run(['rev-parse', '--quiet', '--verify', 'HEAD^{commit}'])).trim()
  if (head === '') throw new UsageError(`${from} has no commit yet; commit the model first (git add . && git commit)`)
  const root = (await git.run(['rev-parse', '--show-toplevel'])).trimEnd()
  return { root, gitDir: resolve(from, common), head: CommitSha.parse(head), git: gitIn(root) }
}
