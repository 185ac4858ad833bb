/** A device that fails under a run, by a judge that speaks the protocol and fails as one does with such a device. */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, expect, it, onTestFinished } from 'vitest'
import { Night } from '../support/table-night.ts'

type Failure = 'gone' | 'poisoned' | 'dies under it'

class Failing extends Night {
  readonly #device = join(this.paceFile, '..', 'device')
  readonly #news = join(this.world.folder, '.git', 'news')
  readonly notify = ['--notify', `tee -a "${this.#news}"`]

  get told(): string {
    return existsSync(this.#news) ? readFileSync(this.#news, 'utf8') : ''
  }
  fails(how: Failure): void {
    writeFileSync(this.#device, how)
  }
  /** Again, and the judge takes no time any more. */
  works(): void {
    this.pace(0)
    rmSync(this.#device)
  }
  get said(): string {
    return this.read('log.txt')
  }
  /** What the run was asked to measure, each experiment once. */
  judged(): string[] {
    return this.world
      .rows()
      .filter(({ experiment }) => experiment !== '0')
      .map(({ experiment, status }) => `${experiment} ${status}`)
  }
}

function failing(): Failing {
  const run = new Failing('night', 0.1)
  onTestFinished(() => run.remove())
  return run
}

let undisturbed: string[] = []
beforeAll(async () => {
  const run = new Failing()
  expect(await run.start(run.fresh('--max-experiments', '3')).ended).toMatchObject({ code: 0 })
  undisturbed = run.judged()
  run.remove()
}, 60_000)

it.each<[string, Failure]>([
  ['falls off the bus', 'gone'],
  ['answers every call with an error of its driver', 'poisoned'],
  ['is lost under a candidate, which then crashes', 'dies under it'],
])(
  'a run whose device %s is paused, looks for it, and goes on to the same verdicts when it is back',
  async (_, how) => {
    const run = failing()
    const { ended } = run.start(run.fresh('--max-experiments', '3', ...run.notify))
    await run.until(() => run.settled() === 1)
    run.fails(how)
    await run.until(() => /the device does not work \(.*\); looking again in 5 s/.test(run.said))
    expect(run.said).toMatch(
      /the device failed \(.*(GPU is lost|finds no such device|unspecified launch failure|no CUDA-capable device).*\); looking whether it works\n/,
    )
    expect((await run.say('status')).stdout).toMatch(/^night: paused \(pid \d+\)/)
    expect(run.told).toMatch(/^night: the device failed \(.*\); the run is paused until it works\n$/)
    run.works()
    expect(await ended).toMatchObject({ code: 0 })
    expect(run.said).toMatch(/the device works again\n.*going on\n/)
    expect(run.judged()).toEqual(undisturbed)
  },
  90_000,
)

it('a run whose device is not back in time ends with exit 75, tells of it, and goes on where it was when it is resumed', async () => {
  const run = failing()
  const { ended } = run.start(run.fresh('--max-experiments', '3', '--device-patience', '1s', ...run.notify))
  await run.until(() => run.settled() === 1)
  run.fails('gone')
  const { code, stderr } = await ended
  expect({ code, last: stderr.trimEnd().split('\n').at(-1) }).toEqual({
    code: 75,
    last: expect.stringMatching(/^autokernel: the device failed and was not back within 1 s \(.*\); the run is saved, resume it$/),
  })
  expect(run.told).toMatch(/night: the device failed and was not back within 1 s/)
  expect([run.settled(), run.judges()]).toEqual([1, []])
  run.works()
  expect(await run.start(run.again()).ended).toMatchObject({ code: 0 })
  expect(run.judged()).toEqual(undisturbed)
}, 90_000)

it('Ctrl-C ends a run that waits for its device within 5 s', async () => {
  const run = failing()
  const { child, ended } = run.start(run.fresh('--max-experiments', '3'))
  await run.until(() => run.settled() === 1)
  run.fails('gone')
  await run.until(() => /looking again in/.test(run.said))
  const at = performance.now()
  child.kill('SIGINT')
  expect(await ended).toMatchObject({ code: 130 })
  expect(performance.now() - at).toBeLessThan(5000)
}, 60_000)

it('a run that waits for its device and is told to pause goes on when it is told to, and not when the device is back', async () => {
  const run = failing()
  const { ended } = run.start(run.fresh('--max-experiments', '3'))
  await run.until(() => run.settled() === 1)
  run.fails('gone')
  await run.until(() => /looking again in/.test(run.said))
  expect((await run.say('pause')).stdout).toMatch(/^night is paused already/)
  await run.until(() => /it stays paused, whether the device works or not/.test(run.said))
  run.works()
  expect((await run.say('resume')).stdout).toMatch(/^night goes on where it was paused/)
  expect(await ended).toMatchObject({ code: 0 })
  expect(run.said).not.toMatch(/the device works again/)
  expect(run.judged()).toEqual(undisturbed)
}, 90_000)
