import { execFileSync } from 'node:child_process'
import { chownSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { packageRoot } from '../../src/package-root.ts'
import { Night } from '../support/table-night.ts'
import { expectClearEnd, expectWhole, keptCommits, outcome } from './whole.ts'

const EXPERIMENTS = ['--max-experiments', '6']
const NOBODY = 65534

let undisturbed: string[] = []
const shim = join(mkdtempSync(join(tmpdir(), 'autokernel-shim-')), 'slow_or_full.so')
beforeAll(async () => {
  execFileSync('gcc', ['-shared', '-fPIC', '-O1', '-o', shim, join(packageRoot, 'test', 'faults', 'slow_or_full.c'), '-ldl'])
  const night = new Night()
  expect(await night.start(night.fresh(...EXPERIMENTS)).ended).toMatchObject({ code: 0 })
  undisturbed = outcome(night)
  night.remove()
})
afterAll(() => rmSync(join(shim, '..'), { recursive: true }))

const opened: Night[] = []
afterEach(() => {
  for (const night of opened.splice(0)) night.remove()
})
function nightAt(pace = 0): Night {
  const night = new Night('night', pace)
  opened.push(night)
  return night
}
async function sameInTheEnd(night: Night): Promise<void> {
  expectWhole(night)
  const done = await night.start(night.again()).ended
  expect(done, done.stderr).toMatchObject({ code: 0 })
  expectWhole(night)
  expect(outcome(night)).toEqual(undisturbed)
}

describe('no file handles left', () => {
  it('ends the run in one line with exit code 3, at whatever moment; with handles again it comes to the same', async () => {
    const night = nightAt(0.05)
    for (const spare of [0, 1, 2, 4]) {
      const before = night.settled()
      const { child, ended } = night.start(before > 0 ? night.again() : night.fresh(...EXPERIMENTS))
      await night.until(() => night.settled() > before)
      const open = readdirSync(`/proc/${child.pid}/fd`).length
      execFileSync('prlimit', ['--pid', String(child.pid), `--nofile=${open + spare}:4096`])
      const done = await ended
      if (done.code !== 0) expectClearEnd(done, /file handles|EMFILE|Too many open files/i)
      expectWhole(night)
      if (done.code === 0) break
    }
    await sameInTheEnd(night)
  }, 60_000)
})

describe('no processes left', () => {
  it.skipIf(process.getuid?.() !== 0)(
    'ends the run in one line with exit code 3, and it goes on when there are some again',
    async () => {
      const night = nightAt(0.05)
      execFileSync('chown', ['-R', String(NOBODY), night.world.folder, join(night.python, '..')])
      chownSync(night.world.folder, NOBODY, NOBODY)
      // The limit counts for users only, never for root.
      const front = ['setpriv', `--reuid=${NOBODY}`, '--clear-groups', 'env', `HOME=${night.world.folder}`]
      const { child, ended } = night.start(night.fresh(...EXPERIMENTS), { front })
      await night.until(() => night.settled() > 0)
      execFileSync('setpriv', [`--reuid=${NOBODY}`, '--clear-groups', 'prlimit', '--pid', String(child.pid), '--nproc=1'])
      expectClearEnd(await ended, /no more processes may be started|Resource temporarily unavailable/)
      execFileSync('chown', ['-R', '0', night.world.folder, join(night.python, '..')])
      await sameInTheEnd(night)
    },
    60_000,
  )
})

describe('a disk where every fsync takes 100 ms', () => {
  it('changes nothing but the time, and Ctrl-C still ends the run within 5 s', async () => {
    const night = nightAt()
    const env = { LD_PRELOAD: shim, SLOW_FSYNC_MS: '100' }
    const { child, ended } = night.start(night.fresh(...EXPERIMENTS), { env })
    await night.until(() => night.settled() >= 2)
    const at = performance.now()
    child.kill('SIGINT')
    expect(await ended).toMatchObject({ code: 130 })
    expect(performance.now() - at).toBeLessThan(5000)
    expectWhole(night)
    const done = await night.start(night.again(), { env }).ended
    expect(done, done.stderr).toMatchObject({ code: 0 })
    expect(outcome(night)).toEqual(undisturbed)
  }, 120_000)
})

describe('a disk that becomes read-only all at once', () => {
  it('ends the run in one line with exit code 3; writable again it comes to the same', async () => {
    const night = nightAt(0.05)
    const frozen = join(night.python, '..', 'frozen')
    const env = { LD_PRELOAD: shim, FULL_FOR: night.world.folder, FULL_AFTER: '0', FULL_WHILE: frozen, FULL_WITH_EROFS: '1' }
    const { ended } = night.start(night.fresh(...EXPERIMENTS), { env })
    await night.until(() => night.settled() >= 1)
    writeFileSync(frozen, '')
    expectClearEnd(await ended, /read-only/i)
    rmSync(frozen)
    await sameInTheEnd(night)
  }, 60_000)
})

describe('a disk that is full just when the row of a kept commit is written', () => {
  it('takes neither half of the row nor the commit; with space again it comes to the same', async () => {
    const night = nightAt()
    const full = join(night.python, '..', 'full')
    writeFileSync(full, '')
    const env = { LD_PRELOAD: shim, FULL_FOR: 'results.tsv', FULL_AFTER: '6', FULL_WHILE: full }
    expectClearEnd(await night.start(night.fresh(...EXPERIMENTS), { env }).ended, /results.tsv: the disk is full/)
    expect(keptCommits(night).length).toBe(1)
    await sameInTheEnd(night)
  }, 60_000)
})
