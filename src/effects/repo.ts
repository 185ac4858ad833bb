/** The run's own branch and worktree: every candidate a commit, every keep one step of the branch, the user's side untouched. */
import { mkdir, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { ToolError, UsageError } from '../errors.ts'
import { CommitSha } from '../schema.ts'
import type { Experiment, Proposal, Repo } from '../types.ts'
import { commitMessage } from './commit-message.ts'
import { type Git, gitIn, withoutFilters } from './git.ts'
import type { Repository } from './repository.ts'

type Change = { path: string; text: string } | { tree: string } // one file, or the whole tree of another commit

// Nearer than any .gitattributes of the user's, so that a kernel's bytes are the ones that were judged, here and in later checkouts.
const ATTRIBUTES: Change = { path: 'optimized/.gitattributes', text: '* -text -ident -filter -working-tree-encoding\n' }
// Given on each command: 'git sparse-checkout' would switch on an extension in the user's .git/config.
const SPARSE = ['core.sparseCheckout=true', 'core.sparseCheckoutCone=false']

export class RunRepo implements Repo {
  readonly branch: string
  readonly repository: Repository
  readonly run: string
  readonly worktree: string
  private readonly inside: Git // git in the worktree, sparse
  private readonly scratch: string

  private constructor(repository: Repository, run: string, worktree: string, inside: Git) {
    this.repository = repository
    this.run = run
    this.worktree = worktree
    this.inside = inside
    this.branch = `autokernel/${run}`
    this.scratch = `refs/autokernel/${run}/next`
  }

  /** Starts branch `autokernel/<run>` at the user's HEAD, in a linked worktree at a path that does not exist yet. */
  static async create(repository: Repository, run: string, worktree: string): Promise<RunRepo> {
    if (!/^[A-Za-z0-9][\w.-]*$/.test(run) || /\.\.|\.$|\.lock$/.test(run)) {
      throw new UsageError(`--run: expected a name of letters, digits, '.', '_' and '-', such as llama-night-1, got '${run}'`)
    }
    const { git } = repository
    if (await commitAt(git, `refs/heads/autokernel/${run}`)) {
      throw new UsageError(`branch autokernel/${run} exists already; choose another --run, or continue that run with --resume ${run}`)
    }
    if (await commitAt(git, 'refs/heads/autokernel')) {
      throw new UsageError(`a branch named 'autokernel' is in the way of autokernel/${run}; rename it: git branch -m autokernel NEW-NAME`)
    }
    await mkdir(dirname(worktree), { recursive: true })
    await git.run(['worktree', 'add', '--no-checkout', '-b', `autokernel/${run}`, worktree, repository.head])
    return RunRepo.enter(repository, run, worktree)
  }

  /** Continues a run; a worktree that somebody removed is made again from the branch. */
  static async open(repository: Repository, run: string, worktree: string): Promise<RunRepo> {
    const { git } = repository
    if (!(await commitAt(git, `refs/heads/autokernel/${run}`))) {
      throw new UsageError(`run ${run}: expected branch autokernel/${run}, found none; it was deleted or belongs to another repository`)
    }
    if (!(await stat(join(worktree, '.git')).catch(() => null))) {
      await rm(worktree, { recursive: true, force: true })
      await git.run(['worktree', 'add', '--force', '--no-checkout', worktree, `autokernel/${run}`])
    }
    return RunRepo.enter(repository, run, worktree)
  }

  private static async enter(repository: Repository, run: string, worktree: string): Promise<RunRepo> {
    const own = resolve(worktree, (await gitIn(worktree).run(['rev-parse', '--git-dir'])).trimEnd())
    await rm(join(own, 'index.lock'), { force: true }) // left by a git that was killed; only we work here, under the run's lock
    await mkdir(join(own, 'info'), { recursive: true })
    await writeFile(join(own, 'info', 'sparse-checkout'), '/optimized/\n')
    const inside = gitIn(worktree, [...SPARSE, ...(await withoutFilters(repository.git))])
    const repo = new RunRepo(repository, run, worktree, inside)
    await repo.reset()
    return repo
  }

  async candidate(number: number, proposal: Proposal, parent: CommitSha, wall: string): Promise<CommitSha> {
    const change = { path: `optimized/${proposal.target}/kernel.py`, text: proposal.source }
    return this.commit(`refs/autokernel/${this.run}/${number}`, parent, [change], commitMessage(proposal.hypothesis), wall)
  }

  async keep(experiment: Experiment, message: string, wall: string): Promise<CommitSha> {
    const tree = (await this.repository.git.run(['rev-parse', '--verify', `${experiment.commit}^{tree}`])).trim()
    const commit = await this.commit(this.scratch, experiment.parent, [{ tree }], message, wall)
    await this.advance(experiment.parent, commit)
    return this.reset()
  }

  /** One commit of files under optimized/ on the branch: the start of a run, or its manifest at the end. */
  async commitFiles(files: Record<string, string>, message: string, wall: string): Promise<CommitSha> {
    const parent = await this.tip()
    const changes = Object.entries(files).map(([path, text]) => ({ path, text }))
    const commit = await this.commit(this.scratch, parent, [ATTRIBUTES, ...changes], message, wall)
    await this.advance(parent, commit)
    return this.reset()
  }

  async reset(): Promise<CommitSha> {
    await this.inside.run(['reset', '--hard'])
    return this.tip()
  }

  async source(commit: CommitSha, kernel: string): Promise<string> {
    return this.repository.git.bytes(['cat-file', 'blob', `${commit}:optimized/${kernel}/kernel.py`])
  }

  async tip(): Promise<CommitSha> {
    const tip = await commitAt(this.repository.git, `refs/heads/${this.branch}`)
    if (!tip) throw new ToolError(`branch ${this.branch} is gone: somebody deleted it while the run was going on`)
    return tip
  }

  /** Blob, trees, commit and ref in one process of 4 ms, with neither index nor working tree: a chain of plumbing commands needs nine. */
  private async commit(ref: string, parent: CommitSha, changes: Change[], message: string, wall: string): Promise<CommitSha> {
    const seconds = Math.floor(Date.parse(wall) / 1000)
    if (Number.isNaN(seconds)) throw new ToolError(`expected an ISO 8601 time for a commit, got '${wall}'`)
    const stream = [
      `commit ${ref}\nmark :1\n`,
      `author autokernel <autokernel@localhost> ${seconds} +0000\n`,
      `committer autokernel <autokernel@localhost> ${seconds} +0000\n`,
      data(message.endsWith('\n') ? message : `${message}\n`),
      `from ${parent}\n`,
      ...changes.map((change) =>
        'tree' in change ? `M 040000 ${change.tree} ""\n` : `M 100644 inline ${checked(change.path)}\n${data(change.text)}`,
      ),
      '\nget-mark :1\ndone\n',
    ]
    // A candidate's ref never changes once it exists; the scratch ref may be a leftover of a crash.
    const force = ref === this.scratch ? ['--force'] : []
    return CommitSha.parse((await this.repository.git.run(['fast-import', '--quiet', '--done', ...force], stream.join(''))).trim())
  }

  /** Compare-and-swap of the branch. Done again after a crash it finds its own commit there, and that is fine. */
  private async advance(from: CommitSha, to: CommitSha): Promise<void> {
    const transaction = `start\nupdate refs/heads/${this.branch} ${to} ${from}\ndelete ${this.scratch} ${to}\ncommit\n`
    try {
      await this.repository.git.run(['update-ref', '-m', 'autokernel', '--stdin'], transaction)
    } catch (cause) {
      const found = await this.tip()
      if (found !== to) throw new ToolError(`branch ${this.branch}: expected ${from}, found ${found}; somebody else moved it`, { cause })
    }
  }
}

async function commitAt(git: Git, ref: string): Promise<CommitSha | null> {
  const id = (await git.run(['rev-parse', '--quiet', '--verify', `${ref}^{commit}`])).trim()
  return id === '' ? null : CommitSha.parse(id)
}

function data(text: string): string {
  return `data ${Buffer.byteLength(text)}\n${text}\n`
}

function checked(path: string): string {
  if (!/^optimized(\/[\w-][\w.-]*|\/\.gitattributes)+$/.test(path))
    throw new ToolError(`a run commits only files under optimized/, not '${path}'`)
  return path
}
