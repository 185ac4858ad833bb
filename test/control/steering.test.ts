import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { packageRoot } from '../../src/package-root.ts'
import { lives, Night } from '../support/table-night.ts'

function night(pace = 0): Night {
  const made = new Night('night', pace)
  onTestFinished(() => made.remove())
  return made
}

it('runs in the background: status and logs -f work from elsewhere, pause frees the device, resume and stop go on and end', async () => {
  const run = night(0.2)
  const started = await run.say(...run.fresh('--detach', '--max-experiments', '50'))
  expect(started, started.stderr).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/^night runs in the background \(pid \d+\); its log: /),
  })
  const pid = Number(/pid (\d+)/.exec(started.stdout)?.[1])
  expect(lives(pid)).toBe(true)
  expect((await run.say(...run.fresh('--detach'))).code).not.toBe(0)

  const following = run.start(['logs', 'night', '-f'])
  await run.until(() => run.settled() > 0)
  expect((await run.say('status')).stdout).toMatch(new RegExp(`^night: running \\(pid ${pid}\\); \\d+ experiments? in \\d+ s, 0.00 USD\n`))

  expect((await run.say('pause')).stdout).toMatch(/^pausing night: /)
  await run.until(() => run.judges().length === 0 && run.events().some(({ type }) => type === 'paused'))
  expect((await run.say('status')).stdout).toMatch(/^night: paused \(pid \d+\)/)
  expect((await run.say('pause')).stdout).toMatch(/^night is paused already/)
  await new Promise((resolve) => setTimeout(resolve, 1000))
  const meanwhile = run.events().slice(run.events().findIndex(({ type }) => type === 'paused'))
  const measured = meanwhile.map(({ type }) => type).filter((type) => /^(checked|timed|confirmed|baselined)$/.test(type))
  expect(measured.length).toBeLessThan(2) // one may have been finished at that very moment
  expect(run.judges()).toEqual([])

  const before = run.settled()
  expect((await run.say('resume')).stdout).toBe('night goes on where it was paused')
  await run.until(() => run.settled() > before)
  expect(run.judges()).toHaveLength(1)

  expect((await run.say('stop')).stdout).toMatch(/^stopping night: it finishes .* writes REPORT.md and ends$/)
  const followed = await following.ended
  expect(followed).toMatchObject({ code: 0, stdout: readFileSync(join(run.root, 'log.txt'), 'utf8') })
  expect(followed.stdout).toMatch(/paused; the device is free[\s\S]*going on[\s\S]*done: autokernel stop asked for the end/)
  expect(existsSync(join(run.root, 'REPORT.md'))).toBe(true)
  await vi.waitFor(() => expect(lives(pid)).toBe(false), 2000)
  expect((await run.say('status', '--json')).stdout).toContain('"finished"')
  expect(run.events().filter(({ type }) => type === 'committed')).toHaveLength(run.settled())
  expect((await run.say('pause')).stderr).toContain('run night is not running; it is finished')
}, 60_000)

it('stop --now does not finish the experiment: it is measured again, under its number, when the run is resumed', async () => {
  const run = night(0.1)
  const { ended } = run.start(run.fresh('--max-experiments', '4'))
  await run.until(() => run.settled() === 1)
  await run.stuck()
  expect((await run.say('stop', '--now')).stdout).toMatch(/^stopping night \(pid \d+\) now: nothing more is measured; go on later with: /)
  expect(await ended).toMatchObject({
    code: 143,
    stderr: expect.stringContaining('interrupted; go on with: autokernel optimize --resume night'),
  })
  expect([run.settled(), run.judges().length, existsSync(join(run.root, 'REPORT.md'))]).toEqual([1, 0, false])
  run.pace(0)
  expect(await run.start(run.again()).ended).toMatchObject({ code: 0 })
  const finished = { code: 0, stdout: expect.stringMatching(/^run night is finished \(--max-experiments is reached\)/) }
  expect(await run.start(run.again('--detach')).ended).toMatchObject(finished) // and nothing is put in the background
  expect(
    run
      .events()
      .filter(({ type }) => type === 'committed')
      .map(({ number }) => number),
  ).toEqual([1, 2, 3, 4])
  expect(
    run.world
      .rows()
      .filter((row) => row.experiment !== '0')
      .map((row) => row.experiment),
  ).toEqual(['1', '2', '3', '4'])
}, 60_000)

it('takes advice for the ideas to come, in one line, whether it runs or not', async () => {
  const run = night()
  expect(await run.start(run.fresh('--max-experiments', '1')).ended).toMatchObject({ code: 0 })
  expect((await run.say('steer', 'try\n split-K ')).stdout).toMatch(/^night: every idea .* once the run is resumed$/)
  expect((await run.say('steer', 'and wider loads')).code).toBe(0)
  expect(run.read('steer.md')).toBe('try split-K\nand wider loads\n')
  expect(await run.say('steer', '  ')).toMatchObject({ code: 2, stderr: expect.stringContaining('expected a line of advice') })
})

describe('a signal', () => {
  it.each<[NodeJS.Signals, number]>([
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGUSR1', 143],
  ])(
    '%s once ends the run within 5 s with exit code %i: state saved, worktree reset, nothing left behind',
    async (signal, code) => {
      const run = night(0.1)
      const { child, ended } = run.start(run.fresh('--max-experiments', '3'))
      await run.until(() => run.settled() === 1)
      await run.stuck()
      const at = performance.now()
      child.kill(signal)
      expect(await ended).toMatchObject({
        code,
        stderr: expect.stringContaining('interrupted; go on with: autokernel optimize --resume night'),
      })
      expect(performance.now() - at).toBeLessThan(5000)
      expect(run.judges()).toEqual([])
      const worktree = join(run.root, 'worktree')
      expect(run.world.git('-C', worktree, 'status', '--porcelain', '--untracked-files=no')).toBe('')
      expect(run.world.git('-C', worktree, 'rev-parse', 'HEAD')).toBe(run.world.git('rev-parse', 'autokernel/night'))
      run.pace(0)
      expect(await run.start(run.again()).ended).toMatchObject({ code: 0 })
      expect(run.settled()).toBe(3)
    },
    60_000,
  )

  it('twice ends it at once, and the next start repairs', async () => {
    const run = night(0.1)
    const { child, ended } = run.start(run.fresh('--max-experiments', '2'))
    await run.until(() => run.events().some(({ type }) => type === 'committed'))
    child.kill('SIGINT')
    child.kill('SIGINT')
    const at = performance.now()
    expect(await ended).toMatchObject({ code: 130 })
    expect(performance.now() - at).toBeLessThan(1000)
    await vi.waitFor(() => expect(run.judges()).toEqual([]), 2000)
    expect(await run.start(run.again()).ended).toMatchObject({ code: 0 })
    expect(run.settled()).toBe(2)
  }, 60_000)

  it('of a terminal that closes ends the run that was started there; until then one line shows where it stands', async () => {
    const run = night(0.1)
    const front = ['python3', join(packageRoot, 'test', 'control', 'in_terminal.py')]
    const { child, ended } = run.start(run.fresh('--max-experiments', '9'), { front, env: { TERM: 'xterm', CI: '' } })
    await run.until(() => run.settled() === 1)
    run.pace(3)
    let shown = ''
    child.stdout?.on('data', (text) => (shown += text))
    await run.until(() => / best [\d.]+ ±[\d.]+ us/.test(shown))
    expect(shown).toMatch(/rmsnorm #2: \w+.*\| best [\d.]+ ±[\d.]+ us.*\| 1 done \| \d+\/h, ~\d+ (s|min) l/)
    child.stdin?.end()
    expect(await ended).toMatchObject({ code: 143 })
    expect(run.events().at(-1)?.type).toBe('stop')
  }, 60_000)

  it('of a hang-up changes nothing for a run without a terminal', async () => {
    const run = night(0.1)
    const { child, ended } = run.start(run.fresh('--max-experiments', '2'))
    await run.until(() => run.settled() === 1)
    child.kill('SIGHUP')
    expect(await ended).toMatchObject({ code: 0 })
  }, 60_000)
})
