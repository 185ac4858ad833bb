/** What is refused before a run begins or goes on: one line, the right exit code, and nothing profiled or changed. */
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Night } from '../support/table-night.ts'

function night(): Night {
  const made = new Night('night')
  onTestFinished(() => made.remove())
  return made
}

describe('a new run is refused before it profiles anything', () => {
  it.each<[string, (folder: string, run: Night) => void, string[], number, RegExp]>([
    [
      'results.tsv is a folder',
      (folder) => mkdirSync(join(folder, 'results.tsv')),
      [],
      2,
      /results\.tsv: expected a file or nothing, found something else; move it/,
    ],
    [
      'results.tsv links to nothing',
      (folder) => symlinkSync('nowhere', join(folder, 'results.tsv')),
      [],
      2,
      /results\.tsv: .* found a link to nothing; remove it/,
    ],
    [
      "results.tsv is somebody's own",
      (folder) => writeFileSync(join(folder, 'results.tsv'), 'a\tb\n1\t2\n'),
      [],
      2,
      /expected the columns of .* found 'a\tb'; move/,
    ],
    [
      'its branch is there',
      (_, run) => run.world.git('branch', 'autokernel/night'),
      [],
      2,
      /branch autokernel\/night exists already, .*; choose another --run$/,
    ],
    [
      'a file is where its folder belongs',
      (folder) => writeFileSync(join(folder, '.autokernel'), ''),
      [],
      3,
      /\.autokernel: expected a folder, found a file; move it away$/,
    ],
    ['its name is too long', () => {}, ['--run', 'x'.repeat(101)], 2, /--run: expected a name of at most 100 letters/],
    ['--kernels is no list', () => {}, ['--kernels', '../../x'], 2, /--kernels: expected names with commas or top:N, got '..\/..\/x'$/],
    [
      'TMPDIR is no folder',
      () => {},
      ['TMPDIR=/nonexistent'],
      3,
      /\/nonexistent: expected a folder for temporary files, found ENOENT; set TMPDIR/,
    ],
    [
      'there is no place for locks',
      () => {},
      ['AUTOKERNEL_LOCKS=/dev/null/x'],
      3,
      /\/dev\/null\/x: expected a folder for the locks of devices, found ENOTDIR; set AUTO/,
    ],
  ])('when %s', async (_, disturb, given, code, expected) => {
    const run = night()
    disturb(run.world.folder, run)
    const env = Object.fromEntries(given.flatMap((each) => (/^[A-Z]/.test(each) ? [each.split('=') as [string, string]] : [])))
    const flags = given.filter((each) => !/^[A-Z]/.test(each))
    const args = run
      .fresh(...flags)
      .filter((each, i, all) => !flags.includes('--run') || (each !== 'night' && !(each === '--run' && all[i + 1] === 'night')))
    const ended = await run.start(args, { env }).ended
    const [last, ...before] = ended.stderr.trimEnd().split('\n').reverse()
    expect(last).toMatch(expected)
    expect(ended.code).toBe(code)
    expect(before.join('\n')).not.toMatch(/^rmsnorm|\n {4}at /) // neither a profile nor a stack
  })
})

it('a run that ended while it was being planned has nothing to pause or to go on with, and says where it says why', async () => {
  const run = night()
  expect((await run.say(...run.fresh('--kernels', 'softmax'))).code).toBe(2)
  expect((await run.say('pause')).stderr).toMatch(/run night is not running; it ended while it was being planned; its log: .*\/log\.txt$/)
})

describe('a run that is there goes on only as itself', () => {
  it('is not mistaken for one of another model, nor named twice', async () => {
    const run = night()
    expect((await run.say(...run.fresh('--max-experiments', '1'))).code).toBe(0)
    const other = run.fresh('--max-experiments', '2').map((each) => (each === 'tiny_rmsnorm.py' ? 'llama.py' : each))
    expect(await run.say(...other)).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(
        /--model: run night is of \/.*\/tiny_rmsnorm.py, got \/.*\/models\/llama.py; choose another --run for it$/,
      ),
    })
    expect(await run.say(...run.again('--run', 'other'))).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/expected one run, got --run other and --resume night; /),
    })
    expect((await run.say(...run.fresh('--max-experiments', '2'))).code).toBe(0)
    expect(run.settled()).toBe(2)
  })

  it.each<[string, (file: string) => void, string]>([
    ['lost', () => {}, 'nothing'],
    ['damaged', (file) => writeFileSync(file, '{"format":'), 'something else'],
    ['a folder', (file) => mkdirSync(file), 'something else'],
  ])('is refused in one line when its profile is %s', async (_, damage, found) => {
    const run = night()
    await run.say(...run.fresh('--max-experiments', '1'))
    const profile = join(run.root, 'profile.json')
    rmSync(profile)
    damage(profile)
    expect(await run.say(...run.again('--max-experiments', '2'))).toMatchObject({
      code: 2,
      stderr: `autokernel: ${profile}: expected the profile that the run began with, found ${found}; restore the file, or start a new run`,
    })
  })

  it('whose folder somebody takes away says so, and ends', async () => {
    const run = night()
    const { ended } = run.start(run.fresh('--max-experiments', '50'))
    await run.until(() => run.settled() > 0)
    renameSync(run.root, join(run.world.folder, 'away')) // at once, unlike a removal, into which a run may write
    const { code, stderr } = await ended
    expect(stderr.trimEnd().split('\n').at(-1)).toMatch(/runs\/night: expected the run's folder, found none; put it back and resume$/)
    expect(code).toBe(3)
  })
})
