/** A user's folder to run the real program in: a git repository of its own in a temporary place. */
import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { execa } from 'execa'
import { type LedgerRow, parseLedger } from '../../src/core/ledger.ts'
import { packageRoot } from '../../src/package-root.ts'

export type Outcome = { code: number; stdout: string; stderr: string }

export class World {
  readonly folder: string

  private constructor(parent: string) {
    this.folder = mkdtempSync(join(parent, 'autokernel-e2e-'))
  }

  /** A repository with one commit that holds the given model fixtures. */
  static repository(...models: string[]): World {
    return World.within(tmpdir(), ...models)
  }

  static empty(): World {
    return new World(tmpdir())
  }

  static within(parent: string, ...models: string[]): World {
    const world = new World(parent)
    writeFileSync(join(world.folder, 'README'), 'a project\n')
    for (const model of models) copyFileSync(join(packageRoot, 'test', 'fixtures', model), join(world.folder, basename(model)))
    world.git('init', '-q', '-b', 'main')
    world.git('add', '.')
    world.git('-c', 'user.name=user', '-c', 'user.email=user@example.com', 'commit', '-qm', 'a project')
    return world
  }

  autokernel(...args: string[]): Promise<Outcome> {
    return this.autokernelWith({}, ...args)
  }

  async autokernelWith(environment: NodeJS.ProcessEnv, ...args: string[]): Promise<Outcome> {
    const { ANTHROPIC_API_KEY: _, ...own } = process.env
    const env = { ...own, ...environment }
    const done = await execa(join(packageRoot, 'autokernel'), args, { cwd: this.folder, reject: false, env, extendEnv: false })
    return { code: done.exitCode ?? -1, stdout: done.stdout, stderr: done.stderr }
  }

  git(...args: string[]): string {
    return execFileSync('git', args, { cwd: this.folder, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trimEnd()
  }

  rows(): LedgerRow[] {
    return parseLedger(readFileSync(join(this.folder, 'results.tsv'), 'utf8')).rows
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true })
  }
}
