/** A run's linked worktree: there, known to git, sparse and on the run's branch, whatever somebody did to it meanwhile. */
import { existsSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { EnvironmentError, ToolError } from '../errors.ts'
import { type Git, gitIn, withoutFilters } from './git.ts'
import { forgetWorktree, worktreeGitDir } from './git-leftovers.ts'
import type { Repository } from './repository.ts'

// Given on each command: 'git sparse-checkout' would switch on an extension in the user's .git/config.
const SPARSE = ['core.sparseCheckout=true', 'core.sparseCheckoutCone=false']

export class RunWorktree {
  readonly path: string
  private readonly repository: Repository
  private readonly branch: string
  private known: { gitDir: string; git: Git } | null = null

  constructor(repository: Repository, branch: string, path: string) {
    this.repository = repository
    this.branch = branch
    this.path = path
  }

  /** git in it. All that it holds follows from the branch, so one that was removed, pruned, moved away or switched is made good first. */
  async git(): Promise<Git> {
    const gitDir = (await worktreeGitDir(this.repository.gitDir, this.path)) ?? (await this.addAgain())
    if (this.known?.gitDir !== gitDir) {
      await mkdir(join(gitDir, 'info'), { recursive: true })
      await writeFile(join(gitDir, 'info', 'sparse-checkout'), '/optimized/\n')
      this.known = { gitDir, git: gitIn(this.path, [...SPARSE, ...(await withoutFilters(this.repository.git))], gitDir) }
    }
    const { git } = this.known
    const head = `refs/heads/${this.branch}`
    // A reset would else bring back what somebody switched to, and that would be verified in place of the run's kernels.
    if ((await readFile(join(gitDir, 'HEAD'), 'utf8')) !== `ref: ${head}\n`)
      await git.run(['symbolic-ref', '-m', 'autokernel', 'HEAD', head])
    return git
  }

  private async addAgain(): Promise<string> {
    const { git, gitDir } = this.repository
    const run = dirname(this.path)
    if (!existsSync(run)) throw new EnvironmentError(`${run}: expected the run's folder, found none; put it back and resume`)
    await forgetWorktree(gitDir, this.path)
    await git.run(['worktree', 'add', '--force', '--no-checkout', this.path, this.branch])
    const own = await worktreeGitDir(gitDir, this.path)
    if (own === null) throw new ToolError(`${this.path}: expected the worktree that git has just made, found none`)
    return own
  }
}
