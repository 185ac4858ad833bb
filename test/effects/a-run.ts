/** A run in a repository, for tests: started, with an experiment in it. */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { RunRepo } from '../../src/effects/repo.ts'
import { findRepository } from '../../src/effects/repository.ts'
import type { CommitSha } from '../../src/schema.ts'
import type { Experiment, Proposal } from '../../src/types.ts'
import { git } from './temp.ts'

export const WALL = '2026-11-20T22:00:00.000Z'
const START = { 'optimized/rmsnorm/kernel.py': 'start = 1\n', 'optimized/matmul-1/kernel.py': 'm = 1\n', 'optimized/plan.json': '{}\n' }

export async function startRun(folder: string, run = 'night-1'): Promise<{ repo: RunRepo; first: CommitSha }> {
  const repo = await RunRepo.create(await findRepository(folder), run, join(folder, '.autokernel/runs', run, 'worktree'))
  return { repo, first: await repo.commitFiles(START, 'Start of the run\n', WALL) }
}

export function proposal(basedOn: CommitSha, source: string, hypothesis = 'one pass over the row'): Proposal {
  return {
    target: 'rmsnorm',
    basedOn,
    source,
    hypothesis,
    predictedGain: null,
    agent: 'search',
    costUsd: 0,
    tokens: 0,
    turns: 0,
    thread: null,
    sweep: [],
    written: null,
    disposable: true,
  }
}

export async function experiment(repo: RunRepo, number: number, parent: CommitSha, source: string): Promise<Experiment> {
  const idea = proposal(parent, source)
  return { number, proposal: idea, parent, startedAt: 0, cuts: 0, commit: await repo.candidate(number, idea, parent, WALL) }
}

export const noRow = async (): Promise<void> => {}

/** Every byte of the user's side: files, index, HEAD, branches but ours, config. */
export function userSide(folder: string): Record<string, string> {
  const seen: Record<string, string> = { refs: git(folder, 'for-each-ref', 'refs/heads/main', 'refs/stash', 'refs/tags') }
  const visit = (path: string): void => {
    for (const entry of readdirSync(join(folder, path), { withFileTypes: true })) {
      const name = join(path, entry.name)
      if (name === '.autokernel' || /^\.git\/(objects|worktrees|logs|refs)$/.test(name)) continue
      if (entry.isDirectory()) visit(name)
      else seen[name] = `${statSync(join(folder, name)).mtimeMs} ${readFileSync(join(folder, name), 'base64')}`
    }
  }
  visit('.')
  return seen
}
