/** Temporary folders and git repositories for tests, removed afterwards. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { onTestFinished } from 'vitest'

export function tempFolder(): string {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'autokernel-test-')))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

// A user's commit made twice has the same id.
const FIXED = { GIT_AUTHOR_DATE: '2026-11-20T12:00:00Z', GIT_COMMITTER_DATE: '2026-11-20T12:00:00Z' }

/** git as the user runs it, with a home of its own so that this machine's settings do not matter. */
export function git(folder: string, ...args: string[]): string {
  const env = { PATH: process.env.PATH, HOME: folder, GIT_CONFIG_NOSYSTEM: '1', ...FIXED }
  return execFileSync('git', args, { cwd: folder, env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}

export function write(folder: string, files: Record<string, string>): void {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true })
    writeFileSync(join(folder, path), text)
  }
}

/** A user's repository with one commit. */
export function userRepository(files: Record<string, string> = { 'llama.py': 'class Llama: ...\n' }): string {
  const folder = tempFolder()
  git(folder, 'init', '-q', '-b', 'main')
  git(folder, 'config', 'user.name', 'A Person')
  git(folder, 'config', 'user.email', 'person@example.org')
  write(folder, files)
  git(folder, 'add', '.')
  git(folder, 'commit', '-q', '-m', 'a model')
  return folder
}
