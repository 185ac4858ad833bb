import { chownSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { RunRepo } from '../../src/effects/repo.ts'
import { findRepository } from '../../src/effects/repository.ts'
import { EnvironmentError, UsageError } from '../../src/errors.ts'
import { CommitSha } from '../../src/schema.ts'
import { startRun } from './a-run.ts'
import { git, tempFolder, userRepository } from './temp.ts'

describe('a folder where a run cannot start', () => {
  const message = (work: Promise<unknown>): Promise<unknown> =>
    work.then(
      () => 'no error',
      (error: unknown) => error,
    )

  it.each<[string, string[], string, RegExp]>([
    ['is not in a repository', [], '.', /not in a git repository; run 'git init'/],
    ['does not exist', [], 'nowhere', /found nothing/],
    ['has no commit', ['init', '-q'], '.', /has no commit yet; commit the model first/],
    ['is bare', ['init', '-q', '--bare'], '.', /bare repository/],
    ['is .git itself', ['init', '-q'], '.git', /inside \.git/],
    ['has sha256 names', ['init', '-q', '--object-format=sha256'], '.', /sha256/],
  ])('%s: one line that says what to do', async (_, command, inside, expected) => {
    const folder = tempFolder()
    if (command.length > 0) git(folder, ...command)
    const error = await message(findRepository(join(folder, inside)))
    expect(error).toBeInstanceOf(UsageError)
    expect(String(error)).toMatch(expected)
    expect(String(error)).not.toContain('\n')
  })

  it.skipIf(process.getuid?.() !== 0)('belongs to another user: one line with the command that trusts it', async () => {
    const folder = userRepository()
    chownSync(folder, 12345, 12345)
    chownSync(join(folder, '.git'), 12345, 12345)
    const error = await message(findRepository(folder))
    expect(error).toBeInstanceOf(UsageError)
    expect(String(error)).toContain(`git config --global --add safe.directory ${folder}`)
  })

  it('says so when git is not installed', async () => {
    const path = process.env.PATH
    process.env.PATH = '/nonexistent'
    try {
      const error = await message(findRepository(tempFolder()))
      expect(error).toBeInstanceOf(EnvironmentError)
      expect(String(error)).toContain('install git')
    } finally {
      process.env.PATH = path
    }
  })

  it('has the branch already, or a branch in the way', async () => {
    const folder = userRepository()
    await startRun(folder)
    await expect(startRun(folder)).rejects.toThrow(/exists already, .*; choose another --run/)
    const other = userRepository()
    git(other, 'branch', 'autokernel')
    await expect(startRun(other)).rejects.toThrow(/in the way/)
    await expect(RunRepo.open(await findRepository(other), 'night-9', join(other, 'w'), null)).rejects.toThrow(
      /branch autokernel\/night-9: .* found no such branch/,
    )
  })

  it('works from inside a git hook, where GIT_DIR points elsewhere', async () => {
    const folder = userRepository()
    process.env.GIT_DIR = '/nowhere'
    try {
      const found = await findRepository(folder)
      expect(found.root).toBe(folder)
      expect(CommitSha.safeParse(found.head).success).toBe(true)
    } finally {
      delete process.env.GIT_DIR
    }
  })
})
