/** What others do to a run's branch and worktree, and what the run makes of it. */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { RunRepo } from '../../src/effects/repo.ts'
import { findRepository } from '../../src/effects/repository.ts'
import { EnvironmentError, TemporaryError, UsageError } from '../../src/errors.ts'
import { experiment, noRow, startRun, userSide, WALL } from './a-run.ts'
import { git, userRepository, write } from './temp.ts'

describe('a run that others disturb', () => {
  it.each<[string, (worktree: string, folder: string) => void]>([
    ['whose .git was deleted', (worktree) => rmSync(join(worktree, '.git'))],
    ['that was deleted', (worktree) => rmSync(worktree, { recursive: true })],
    ['that git has forgotten', (_, folder) => rmSync(join(folder, '.git/worktrees/worktree'), { recursive: true })],
    ['that was moved', (worktree, folder) => void git(folder, 'worktree', 'move', worktree, join(folder, '.autokernel/elsewhere'))],
    ['that was removed', (worktree, folder) => void git(folder, 'worktree', 'remove', '--force', worktree)],
    ['that was switched', (worktree) => void git(worktree, 'checkout', '-q', '--no-guess', '-b', 'other', 'main')],
  ])(
    'makes a worktree %s good at the next verdict, or when it is resumed, and does not touch the repository around it',
    async (_, damage) => {
      const folder = userRepository()
      const { repo, first } = await startRun(folder)
      write(folder, { 'llama.py': 'edited and not committed\n' })
      const kernel = () => readFileSync(join(repo.worktree, 'optimized/rmsnorm/kernel.py'), 'utf8')
      damage(repo.worktree, folder)
      const before = userSide(folder)
      const tip = await repo.keep(await experiment(repo, 1, first, 'start = 2\n'), 'perf\n', WALL, noRow)
      expect([git(folder, 'rev-parse', 'autokernel/night-1').trim(), kernel()]).toEqual([tip, 'start = 2\n'])
      expect(userSide(folder)).toEqual(before)
      rmSync(repo.worktree, { recursive: true, force: true })
      const again = await RunRepo.open(await findRepository(folder), 'night-1', repo.worktree, tip)
      expect([await again.reset(), kernel()]).toEqual([tip, 'start = 2\n'])
      expect(userSide(folder)).toEqual(before)
    },
  )

  it('does not make the folder of a run anew that somebody removed: one line', async () => {
    const folder = userRepository()
    const { repo } = await startRun(folder)
    rmSync(join(folder, '.autokernel'), { recursive: true })
    await expect(repo.reset()).rejects.toThrow(
      new EnvironmentError(`${join(folder, '.autokernel/runs/night-1')}: expected the run's folder, found none; put it back and resume`),
    )
    expect(existsSync(join(folder, '.autokernel'))).toBe(false)
  })

  it("waits for somebody's git that has the worktree's index for a moment, and not for ever", async () => {
    const folder = userRepository()
    const { repo, first } = await startRun(folder)
    const lock = join(folder, '.git/worktrees/worktree/index.lock')
    writeFileSync(lock, '')
    setTimeout(() => rmSync(lock), 500)
    expect(await repo.reset()).toBe(first)
    writeFileSync(lock, '')
    const error = await repo.reset().catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(TemporaryError)
    expect(String(error)).toMatch(/index\.lock: another git has had it for 3 s; end it, and resume/)
  }, 20_000)

  it('is resumed where its journal ends: past its own commits that the journal does not know, and in a worktree that was switched', async () => {
    const folder = userRepository()
    const { repo, first } = await startRun(folder)
    await repo.commitFiles({ 'optimized/manifest.json': '{}\n' }, 'autokernel: put rmsnorm into the model\n', WALL)
    git(repo.worktree, 'checkout', '-q', '--detach', first)
    const again = await RunRepo.open(await findRepository(folder), 'night-1', repo.worktree, first)
    expect(await again.tip()).toBe(first)
    expect(git(repo.worktree, 'symbolic-ref', 'HEAD').trim()).toBe('refs/heads/autokernel/night-1')
  })

  it.each<[string, (folder: string) => void, RegExp]>([
    [
      'was moved elsewhere',
      (folder) => git(folder, 'update-ref', 'refs/heads/autokernel/night-1', 'main'),
      /which does not contain it; to put it/,
    ],
    ['was deleted', (folder) => git(folder, 'update-ref', '-d', 'refs/heads/autokernel/night-1'), /found no such branch; to put it back/],
    [
      'got a commit of somebody else',
      (folder) => {
        const more = git(
          folder,
          '-c',
          'user.name=B',
          '-c',
          'user.email=b@c',
          'commit-tree',
          '-p',
          'autokernel/night-1',
          '-m',
          'mine',
          'main^{tree}',
        )
        git(folder, 'update-ref', 'refs/heads/autokernel/night-1', more.trim())
      },
      /found [0-9a-f]{12} by B <b@c> \(mine\); to put it back/,
    ],
  ])('is not resumed when its branch %s, and says what it found', async (_, change, message) => {
    const folder = userRepository()
    const { repo, first } = await startRun(folder)
    change(folder)
    const before = git(folder, 'for-each-ref')
    await expect(RunRepo.open(await findRepository(folder), 'night-1', repo.worktree, first)).rejects.toThrow(message)
    expect(git(folder, 'for-each-ref')).toBe(before)
  })

  it.each<[string, (folder: string) => void, string]>([
    ['is moved', (folder) => git(folder, 'update-ref', 'refs/heads/autokernel/night-1', 'main'), '; somebody else moved it'],
    ['is deleted', (folder) => git(folder, 'update-ref', '-d', 'refs/heads/autokernel/night-1'), 'none; somebody deleted it'],
  ])(
    'stops at its next verdict, whatever that is, when its branch %s meanwhile, and takes nothing that is there for its own',
    async (_, change, found) => {
      const folder = userRepository()
      const { repo, first } = await startRun(folder)
      const kept = await repo.keep(await experiment(repo, 1, first, 'start = 2\n'), 'perf\n', WALL, noRow)
      const next = await experiment(repo, 2, kept, 'start = 3\n')
      change(folder)
      const before = git(folder, 'for-each-ref')
      const attempts = [() => repo.reset(), () => repo.keep(next, 'perf\n', WALL, noRow), () => repo.commitFiles({}, 'end\n', WALL)]
      for (const attempt of attempts) {
        const error = await attempt().catch((thrown: unknown) => thrown)
        expect(error).toBeInstanceOf(UsageError)
        expect(String(error)).toContain(`branch autokernel/night-1: expected ${kept.slice(0, 12)}, found `)
        expect(String(error)).toContain(`${found}; to put it back: git update-ref refs/heads/autokernel/night-1 ${kept.slice(0, 12)}`)
      }
      expect(git(folder, 'for-each-ref')).toBe(before)
    },
  )

  it('leaves locks of anybody else alone, and does its work beside them', async () => {
    const folder = userRepository()
    const { repo, first } = await startRun(folder)
    const locks = ['.git/index.lock', '.git/HEAD.lock', '.git/refs/heads/main.lock', '.git/config.lock']
    for (const lock of locks) writeFileSync(join(folder, lock), '')
    writeFileSync(join(folder, '.git/worktrees/worktree/HEAD.lock'), '')
    const again = await RunRepo.open(await findRepository(folder), 'night-1', repo.worktree, first)
    await again.keep(await experiment(again, 1, first, 'start = 2\n'), 'perf\n', WALL, noRow)
    for (const lock of locks) expect(existsSync(join(folder, lock))).toBe(true)
  })
})
