import { chmodSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { RunRepo } from '../../src/effects/repo.ts'
import { findRepository } from '../../src/effects/repository.ts'
import { ToolError } from '../../src/errors.ts'
import type { CommitSha } from '../../src/schema.ts'
import { experiment, noRow, proposal, startRun, userSide, WALL } from './a-run.ts'
import { git, tempFolder, userRepository, write } from './temp.ts'

describe('a run in a repository', () => {
  it('starts a branch at HEAD that adds the starting kernels and nothing else', async () => {
    const folder = userRepository()
    const { repo, first } = await startRun(folder)
    expect(git(folder, 'diff', '--name-only', 'main', first).split('\n').sort()).toEqual([
      '',
      'optimized/.gitattributes',
      'optimized/matmul-1/kernel.py',
      'optimized/plan.json',
      'optimized/rmsnorm/kernel.py',
    ])
    expect(git(folder, 'rev-parse', `${first}^`)).toBe(git(folder, 'rev-parse', 'main'))
    expect(await repo.tip()).toBe(first)
    expect(readdirSync(repo.worktree).sort()).toEqual(['.git', 'optimized'])
    expect(git(repo.worktree, 'status', '--porcelain')).toBe('')
  })

  it('gives every candidate a commit of its own that changes exactly one file, and leaves the branch alone', async () => {
    const folder = userRepository()
    const { repo, first } = await startRun(folder)
    const commit = await repo.candidate(7, proposal(first, 'start = 2\n'), first, WALL)
    expect(git(folder, 'rev-parse', 'refs/autokernel/night-1/7').trim()).toBe(commit)
    expect(git(folder, 'diff', '--name-only', first, commit)).toBe('optimized/rmsnorm/kernel.py\n')
    expect(git(folder, 'log', '-1', '--format=%an <%ae> %cn <%ce> %aI %s', commit).trim()).toBe(
      'autokernel <autokernel@localhost> autokernel <autokernel@localhost> 2026-11-20T22:00:00+00:00 one pass over the row',
    )
    expect(await repo.tip()).toBe(first)
    expect(await repo.source(commit, 'rmsnorm')).toBe('start = 2\n')
    expect(await repo.source(first, 'rmsnorm')).toBe('start = 1\n')
  })

  it('gives the same inputs the same commit ids, in another repository with the same history too', async () => {
    const ids: CommitSha[][] = []
    for (const folder of [userRepository(), userRepository()]) {
      const { repo, first } = await startRun(folder)
      const again = await repo.candidate(1, proposal(first, 'a\n'), first, WALL)
      const tried = await experiment(repo, 1, first, 'a\n')
      ids.push([first, again, tried.commit, await repo.keep(tried, 'perf\n', WALL, noRow)])
      expect(tried.commit).toBe(again)
    }
    expect(ids[0]).toEqual(ids[1])
  })

  it('refuses to replace a candidate that is already on record under that number', async () => {
    const { repo, first } = await startRun(userRepository())
    await repo.candidate(1, proposal(first, 'a\n'), first, WALL)
    await expect(repo.candidate(1, proposal(first, 'b\n'), first, WALL)).rejects.toThrow(ToolError)
  })

  it('keeps by one new commit with the candidate tree, the incumbent as parent, and the files in the worktree', async () => {
    const folder = userRepository()
    const { repo, first } = await startRun(folder)
    const tried = await experiment(repo, 1, first, 'start = 2\n')
    const kept = await repo.keep(tried, 'perf(rmsnorm): 1.3x\n\nAutokernel-Experiment: 1\n', WALL, noRow)
    expect(kept).not.toBe(tried.commit)
    expect(await repo.tip()).toBe(kept)
    expect(git(folder, 'log', '--format=%s', '--first-parent', 'main..autokernel/night-1')).toBe('perf(rmsnorm): 1.3x\nStart of the run\n')
    expect(git(folder, 'rev-parse', `${kept}^{tree}`, `${kept}^`)).toBe(git(folder, 'rev-parse', `${tried.commit}^{tree}`, first))
    expect(readFileSync(join(repo.worktree, 'optimized/rmsnorm/kernel.py'), 'utf8')).toBe('start = 2\n')
  })

  it('keeps a second time, after a crash, without a second commit', async () => {
    const { repo, first } = await startRun(userRepository())
    const tried = await experiment(repo, 1, first, 'start = 2\n')
    const kept = await repo.keep(tried, 'perf: 1.3x\n', WALL, noRow)
    expect(await repo.keep(tried, 'perf: 1.3x\n', WALL, noRow)).toBe(kept)
  })

  it('does not move a branch that somebody else moved', async () => {
    const folder = userRepository()
    const { repo, first } = await startRun(folder)
    const tried = await experiment(repo, 1, first, 'start = 2\n')
    git(folder, 'update-ref', 'refs/heads/autokernel/night-1', 'main')
    await expect(repo.keep(tried, 'perf: 1.3x\n', WALL, noRow)).rejects.toThrow(/somebody else moved it/)
    expect(git(folder, 'rev-parse', 'autokernel/night-1')).toBe(git(folder, 'rev-parse', 'main'))
  })

  it('resets the worktree to what is kept, whatever was done to it', async () => {
    const { repo, first } = await startRun(userRepository())
    writeFileSync(join(repo.worktree, 'optimized/rmsnorm/kernel.py'), 'broken')
    rmSync(join(repo.worktree, 'optimized/matmul-1'), { recursive: true })
    expect(await repo.reset()).toBe(first)
    expect(readFileSync(join(repo.worktree, 'optimized/rmsnorm/kernel.py'), 'utf8')).toBe('start = 1\n')
    expect(existsSync(join(repo.worktree, 'optimized/matmul-1/kernel.py'))).toBe(true)
  })

  it('opens again for resuming, past a lock of a killed git and a worktree that was deleted', async () => {
    const folder = userRepository()
    const { repo, first } = await startRun(folder)
    writeFileSync(join(folder, '.git/worktrees/worktree/index.lock'), '')
    expect(await (await RunRepo.open(await findRepository(folder), 'night-1', repo.worktree, first)).tip()).toBe(first)
    rmSync(repo.worktree, { recursive: true })
    const again = await RunRepo.open(await findRepository(folder), 'night-1', repo.worktree, first)
    expect(await again.reset()).toBe(first)
    expect(readFileSync(join(repo.worktree, 'optimized/rmsnorm/kernel.py'), 'utf8')).toBe('start = 1\n')
  })

  it('commits sources of any text unchanged, and messages without control characters', async () => {
    const folder = userRepository()
    const { repo, first } = await startRun(folder)
    const source = '# ünïcode – 核\r\ndata 5\n\n"""$Id$"""\t\nno newline at the end'
    const long = `\u001b[31mred\u0000 ${'a very long hypothesis '.repeat(8)}\nand a second line`
    const commit = await repo.candidate(2, proposal(first, source, long), first, WALL)
    expect(await repo.source(commit, 'rmsnorm')).toBe(source)
    const message = git(folder, 'log', '-1', '--format=%B', commit)
    expect((message.split('\n')[0] ?? '').length).toBeLessThanOrEqual(72)
    expect(message).toContain('and a second line')
    expect(message).not.toMatch(/(?!\n)\p{Cc}/u)
  })

  it('has the very bytes of a kernel in its worktree, whatever the repository says of line ends and keywords', async () => {
    const folder = userRepository({ '.gitattributes': '* text eol=crlf ident\n' })
    const { repo, first } = await startRun(folder)
    const source = 'one = "$Id$"\ntwo = 2\r\n'
    await repo.keep(await experiment(repo, 1, first, source), 'perf\n', WALL, noRow)
    expect(readFileSync(join(repo.worktree, 'optimized/rmsnorm/kernel.py'), 'utf8')).toBe(source)
    expect(git(repo.worktree, 'status', '--porcelain')).toBe('')
  })

  it('commits only under optimized/', async () => {
    const { repo } = await startRun(userRepository())
    for (const path of ['llama.py', 'optimized/../llama.py', 'optimized', '/etc/passwd', 'optimized/a b\nM 100644']) {
      await expect(repo.commitFiles({ [path]: '' }, 'x\n', WALL)).rejects.toThrow(/only files under optimized/)
    }
  })
})

describe("the user's side", () => {
  it('is byte for byte untouched by a whole run, whatever hooks, filters and settings there are', async () => {
    const folder = userRepository({
      'llama.py': 'class Llama: ...\n',
      'weights.bin': 'large\n',
      'sub/data.txt': 'text\n',
    })
    for (const hook of [
      'pre-commit',
      'post-checkout',
      'post-commit',
      'commit-msg',
      'reference-transaction',
      'post-index-change',
      'prepare-commit-msg',
    ]) {
      write(folder, { [`.git/hooks/${hook}`]: `#!/bin/sh\ntouch "${folder}/.git/hook-ran-${hook}"\nexit 1\n` })
      chmodSync(join(folder, '.git/hooks', hook), 0o755)
    }
    write(folder, {
      '.gitattributes': '* filter=lfs text eol=crlf ident\n*.bin filter=lfs\n',
      '.git/info/attributes': '*.py filter=lfs\n',
      'llama.py': 'class Llama: staged\n',
      'untracked.txt': 'mine\n',
    })
    git(folder, '-c', 'core.hooksPath=/dev/null', 'add', 'llama.py')
    const filter = `sh -c 'touch ${folder}/.git/filter-ran; exit 1'`
    for (const [key, value] of [
      ['commit.gpgsign', 'true'],
      ['gpg.program', '/bin/false'],
      ['core.autocrlf', 'true'],
      ['core.fsmonitor', `${folder}/.git/hooks/pre-commit`],
      ['filter.lfs.smudge', filter],
      ['filter.lfs.clean', filter],
      ['filter.lfs.process', filter],
      ['filter.lfs.required', 'true'],
      ['user.useConfigOnly', 'true'],
      ['submodule.recurse', 'true'],
      ['branch.autoSetupMerge', 'always'],
    ] as const) {
      git(folder, 'config', key, value)
    }
    git(folder, 'config', '--unset', 'user.name')
    git(folder, 'config', '--unset', 'user.email')
    const before = userSide(folder)

    const { repo, first } = await startRun(folder)
    const tried = await experiment(repo, 1, first, 'start = 2\n')
    const kept = await repo.keep(tried, 'perf: 1.3x\n', WALL, noRow)
    await experiment(repo, 2, kept, 'start = 3\n')
    await repo.reset()
    await repo.commitFiles({ 'optimized/manifest.json': '{"format":1}\n' }, 'End of the run\n', WALL)

    expect(userSide(folder)).toEqual(before) // a hook or a filter that ran would have left a file there
    expect(readFileSync(join(repo.worktree, 'optimized/rmsnorm/kernel.py'), 'utf8')).toBe('start = 2\n')
  })

  it('may be a subfolder, a detached HEAD, a linked worktree, a shallow clone, or a submodule and a worktree of it', async () => {
    const origin = userRepository({ 'a/b/llama.py': 'x\n' })
    write(origin, { 'more.txt': 'x' })
    git(origin, 'add', '.')
    git(origin, 'commit', '-q', '-m', 'second')
    const clone = join(tempFolder(), 'clone')
    git(origin, 'clone', '-q', '--depth', '1', `file://${origin}`, clone)
    git(origin, 'checkout', '-q', '--detach')
    git(origin, 'worktree', 'add', '-q', join(origin, 'linked'), 'main')
    const outer = userRepository()
    git(outer, '-c', 'protocol.file.allow=always', 'submodule', '--quiet', 'add', `file://${origin}`, 'sub')
    git(join(outer, 'sub'), 'worktree', 'add', '-q', '--detach', join(outer, 'sub-linked'))
    for (const [folder, run] of [
      [join(outer, 'sub'), 'in-submodule'],
      [join(outer, 'sub-linked'), 'in-worktree-of-it'],
      [join(origin, 'a/b'), 'in-sub'],
      [join(origin, 'linked'), 'in-linked'],
      [clone, 'in-shallow'],
    ] as const) {
      const { repo, first } = await startRun(folder, run)
      expect(await repo.keep(await experiment(repo, 1, first, 'x = 2\n'), 'perf\n', WALL, noRow)).toBe(await repo.tip())
    }
  })
})
