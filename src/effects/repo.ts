/** The run's own branch and worktree: every candidate a commit, every keep one step of the branch, the user's side untouched. */
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import { foreignCommit, type OnBranch } from '../core/branch.ts'
import { ToolError, UsageError } from '../errors.ts'
import type { Repo } from '../ports.ts'
import { CommitSha } from '../schema.ts'
import type { Experiment, Proposal } from '../types.ts'
import { commitMessage } from './commit-message.ts'
import type { Git } from './git.ts'
import { forgetWorktree, removeLocks } from './git-leftovers.ts'
import type { Repository } from './repository.ts'
import { RunWorktree } from './run-worktree.ts'

/** A candidate as the journal has it; commit is null while it is not known to have been made. */
export type Candidate = { number: number; proposal: Proposal; parent: CommitSha; wall: string; commit: CommitSha | null }

/** Where the next step of the branch is made: a ref of our worktree alone, which nobody else lists. */
const SCRATCH = 'refs/worktree/autokernel-next'

type Change = { path: string; text: string } | { tree: string } // one file, or the whole tree of another commit

// Nearer than any .gitattributes of the user's, so that a kernel's bytes are the ones that were judged, here and in later checkouts.
const ATTRIBUTES: Change = { path: 'optimized/.gitattributes', text: '* -text -ident -filter -working-tree-encoding\n' }

export class RunRepo implements Repo {
  readonly branch: string
  readonly repository: Repository
  readonly run: string
  readonly worktree: string
  private readonly linked: RunWorktree
  private readonly strays = new Set<number>() // candidates that git has and the journal does not
  private at: CommitSha | null = null // where this process left the branch

  private constructor(repository: Repository, run: string, worktree: string) {
    this.repository = repository
    this.run = run
    this.worktree = worktree
    this.branch = `autokernel/${run}`
    this.linked = new RunWorktree(repository, this.branch, worktree)
  }

  /**
   * Starts branch `autokernel/<run>` at the user's HEAD, in a linked worktree at a path that does not exist yet. `begun`: the same start
   * was killed before; what it left behind is made anew.
   */
  static async create(repository: Repository, run: string, worktree: string, begun = false): Promise<RunRepo> {
    const { git, gitDir, head } = repository
    if (begun) await removeLocks(gitDir, run, [repository.root, worktree])
    if (begun) await forgetWorktree(gitDir, worktree)
    const tip = await commitAt(git, `refs/heads/autokernel/${run}`)
    const mine = begun && tip !== null && (tip === head || foreignCommit(await between(git, head, tip), tip, run) === null)
    if (!mine) await RunRepo.refuseTaken(repository, run, worktree)
    await mkdir(dirname(worktree), { recursive: true })
    const force = mine ? ['--force', '-B'] : ['-b']
    await git.run(['worktree', 'add', '--no-checkout', ...force, `autokernel/${run}`, worktree, head])
    return RunRepo.enter(repository, run, worktree)
  }

  /** Asked before a run is planned, too: profiling takes minutes. */
  static async refuseTaken({ git }: Repository, run: string, worktree: string): Promise<void> {
    if (await commitAt(git, `refs/heads/autokernel/${run}`))
      throw new UsageError(`branch autokernel/${run} exists already, and no run of that name in this folder; choose another --run`)
    if (await commitAt(git, 'refs/heads/autokernel'))
      throw new UsageError(`a branch named 'autokernel' is in the way of autokernel/${run}; rename it: git branch -m autokernel NEW-NAME`)
    if (existsSync(worktree))
      throw new UsageError(
        `${worktree}: expected nothing yet, found the worktree of a run without a journal; remove it, or choose another --run`,
      )
  }

  /**
   * Continues a run whose journal ends with `best` on the branch (null: wherever it is, for those who only look). Our own commits beyond it go: the journal does not know them, so they
   * are made again. A worktree that was removed, pruned or switched is made again; anybody else's commit on the branch ends the attempt.
   */
  static async open(repository: Repository, run: string, worktree: string, best: CommitSha | null): Promise<RunRepo> {
    const { git, gitDir } = repository
    const branch = `refs/heads/autokernel/${run}`
    await removeLocks(gitDir, run, [repository.root, worktree])
    const tip = await commitAt(git, branch)
    if (!tip) throw moved(run, best, 'no such branch')
    if (best !== null && tip !== best) {
      const foreign = foreignCommit(await between(git, best, tip), tip, run)
      if (foreign !== null) throw moved(run, best, foreign)
      await git.run(['update-ref', '-m', 'autokernel: resumed', branch, best, tip])
    }
    return RunRepo.enter(repository, run, worktree)
  }

  private static async enter(repository: Repository, run: string, worktree: string): Promise<RunRepo> {
    const repo = new RunRepo(repository, run, worktree)
    await repo.reset()
    return repo
  }

  /** Brings refs/autokernel/<run>/ in line with the journal: what is missing is made again, what it does not know may be replaced. */
  async restore(candidates: Candidate[]): Promise<void> {
    const listed = await this.repository.git.run([
      'for-each-ref',
      '--format=%(refname:lstrip=3) %(objectname)',
      `refs/autokernel/${this.run}/`,
    ])
    const found = new Map(listed.split('\n').map((line) => line.split(' ') as [string, string]))
    for (const { number, proposal, parent, wall, commit } of candidates) {
      if (commit === null || found.get(String(number)) === commit) continue
      if (found.has(String(number))) this.strays.add(number)
      const again = await this.candidate(number, proposal, parent, wall)
      if (again !== commit) throw new ToolError(`candidate ${number}: expected commit ${commit} as the journal says, made ${again}`)
    }
    const known = new Set(candidates.filter(({ commit }) => commit !== null).map(({ number }) => String(number)))
    for (const name of found.keys()) if (/^\d+$/.test(name) && !known.has(name)) this.strays.add(Number(name))
  }

  async candidate(number: number, proposal: Proposal, parent: CommitSha, wall: string): Promise<CommitSha> {
    const change = { path: `optimized/${proposal.target}/kernel.py`, text: proposal.source }
    const ref = `refs/autokernel/${this.run}/${number}`
    const commit = await this.commit(ref, parent, [change], commitMessage(proposal.hypothesis), wall, this.strays.has(number))
    this.strays.delete(number)
    return commit
  }

  async keep(experiment: Experiment, message: string, wall: string, record: (commit: CommitSha) => Promise<void>): Promise<CommitSha> {
    const tree = (await this.repository.git.run(['rev-parse', '--verify', `${experiment.commit}^{tree}`])).trim()
    const commit = await this.commit(SCRATCH, experiment.parent, [{ tree }], message, wall, true)
    await record(commit)
    await this.advance(experiment.parent, commit)
    return this.reset()
  }

  /** One commit of files under optimized/ on the branch: the start of a run, or its manifest at the end. */
  async commitFiles(files: Record<string, string>, message: string, wall: string): Promise<CommitSha> {
    const parent = await this.tip()
    const changes = Object.entries(files).map(([path, text]) => ({ path, text }))
    const commit = await this.commit(SCRATCH, parent, [ATTRIBUTES, ...changes], message, wall, true)
    await this.advance(parent, commit)
    return this.reset()
  }

  async reset(): Promise<CommitSha> {
    const tip = await this.tip() // first: a worktree is not put on a branch that somebody took away
    await (await this.linked.git()).run(['reset', '--hard'])
    this.at = tip
    return tip
  }

  async source(commit: CommitSha, kernel: string): Promise<string> {
    return this.repository.git.bytes(['cat-file', 'blob', `${commit}:optimized/${kernel}/kernel.py`])
  }

  /** Of the branch, where nobody else has moved it: another's commit is never taken for the run's best. */
  async tip(): Promise<CommitSha> {
    const tip = await commitAt(this.repository.git, `refs/heads/${this.branch}`)
    if (!tip || (this.at !== null && tip !== this.at)) throw movedMeanwhile(this.run, this.at, tip)
    return tip
  }

  /** Blob, trees, commit and ref in one process of 4 ms, with neither index nor working tree: a chain of plumbing commands needs nine. */
  private async commit(
    ref: string,
    parent: CommitSha,
    changes: Change[],
    message: string,
    wall: string,
    replace: boolean,
  ): Promise<CommitSha> {
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
    // A candidate's ref never changes once the journal knows it; the scratch ref is always a leftover.
    const force = replace ? ['--force'] : []
    const git = ref === SCRATCH ? await this.linked.git() : this.repository.git
    return CommitSha.parse((await git.run(['fast-import', '--quiet', '--done', ...force], stream.join(''))).trim())
  }

  /** Compare-and-swap of the branch. Done again after a crash it finds its own commit there, and that is fine. */
  private async advance(from: CommitSha, to: CommitSha): Promise<void> {
    // The scratch ref stays until the next commit: deleting any ref locks packed-refs, and a git that is killed with that lock blocks the user's.
    try {
      await this.repository.git.run(['update-ref', '-m', 'autokernel', `refs/heads/${this.branch}`, to, from])
    } catch {
      const found = await commitAt(this.repository.git, `refs/heads/${this.branch}`)
      if (found !== to) throw movedMeanwhile(this.run, from, found)
    }
    this.at = to
  }
}

function moved(run: string, best: CommitSha | null, found: string): UsageError {
  const fix = best === null ? '' : `; to put it back: git update-ref refs/heads/autokernel/${run} ${best.slice(0, 12)}`
  return new UsageError(`branch autokernel/${run}: expected it to end at ${best?.slice(0, 12) ?? 'a commit'}, found ${found}${fix}`)
}

function movedMeanwhile(run: string, expected: CommitSha | null, found: CommitSha | null): UsageError {
  const what = found === null ? 'none; somebody deleted it' : `${found.slice(0, 12)}; somebody else moved it`
  const fix = expected === null ? '' : `; to put it back: git update-ref refs/heads/autokernel/${run} ${expected.slice(0, 12)}`
  return new UsageError(`branch autokernel/${run}: expected ${expected?.slice(0, 12) ?? 'a commit'}, found ${what}${fix}`)
}

/** The commits that `tip` has and `from` has not, or null when `tip` is not a descendant of `from`. */
async function between(git: Git, from: CommitSha, tip: CommitSha): Promise<OnBranch[] | null> {
  const base = (await git.run(['merge-base', from, tip])).trim()
  if (base !== from) return null
  const log = await git.run(['log', '-z', '--format=%H%x1f%an <%ae>%x1f%B', `${from}..${tip}`])
  return log
    .split('\0')
    .filter(Boolean)
    .map((entry) => {
      const [id = '', author = '', message = ''] = entry.split('\x1f')
      return { id, author, message }
    })
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
