import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it, onTestFinished, vi } from 'vitest'
import { Night } from '../support/table-night.ts'

function night(): { run: Night; news: string[]; told: () => string } {
  const run = new Night()
  onTestFinished(() => run.remove())
  const file = join(run.world.folder, '.git', 'news')
  return { run, news: ['--notify', `tee -a "${file}"`], told: () => (existsSync(file) ? readFileSync(file, 'utf8') : '') }
}

it('tells whoever --notify names what the night brought, in one line', async () => {
  const { run, news, told } = night()
  expect(await run.start(run.fresh('--max-experiments', '2', ...news)).ended).toMatchObject({ code: 0 })
  expect(told()).toBe(
    'night: tiny_rmsnorm.py (Model, fp32): 1.332x faster (95 % interval 1.332 to 1.332), verified; 2 experiments, --max-experiments is reached\n',
  )
}, 30_000)

it('tells of an error what the terminal says, and the run keeps its own exit code', async () => {
  const { run, news, told } = night()
  const { ended } = run.start(run.fresh('--max-experiments', '50', ...news))
  await run.until(() => run.settled() > 0)
  rmSync(run.paceFile) // the judge cannot go on without it
  const { code, stderr } = await ended
  expect(code).toBe(1)
  expect(stderr).toContain('No such file')
  expect(told()).toMatch(/^night: .*ended \(exit code 1\); log: .*judge\.log .*No such file.*\n$/)
  expect(run.read('log.txt')).toMatch(/Z ended: .*ended \(exit code 1\); log: /)
}, 30_000)

it.each([
  ['an exception', "throw new Error('out of the blue')"],
  ['a rejection', "Promise.reject(new Error('out of the blue'))"],
])(
  'ends by %s that nobody caught with one line, tells of it, leaves no judge, and goes on when it is resumed',
  async (_, code) => {
    const { run, news, told } = night()
    const trigger = join(run.world.folder, '.git', 'now')
    const bad = join(run.world.folder, '.git', 'bad.mjs')
    writeFileSync(
      bad,
      `import { existsSync, rmSync } from 'node:fs'
    const look = () => { if (existsSync('${trigger}')) { rmSync('${trigger}'); ${code} } }
    if (process.argv.includes('optimize')) setInterval(look, 20).unref()`,
    )
    const { ended } = run.start(run.fresh('--max-experiments', '3', ...news), { env: { NODE_OPTIONS: `--import=${bad}` } })
    await run.until(() => run.settled() === 1)
    await run.stuck()
    writeFileSync(trigger, '')
    expect(await ended).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(
        /\nautokernel: night met an error that nobody expected: out of the blue; it is saved, go on with: autokernel optimize --resume night; log: \S+\n$/,
      ),
    })
    expect(told()).toMatch(/^night: night met an error that nobody expected: out of the blue; .*\n$/)
    expect(run.read('log.txt')).toMatch(/nobody caught: Error: out of the blue\n.* at /)
    await vi.waitFor(() => expect(run.judges()).toEqual([]), 2000)
    run.pace(0)
    expect(await run.start(run.again()).ended).toMatchObject({ code: 0 })
    expect(run.settled()).toBe(3)
  },
  60_000,
)

it('goes on, and ends well, when nobody can be told', async () => {
  const { run } = night()
  const done = await run.start(run.fresh('--max-experiments', '1', '--notify', 'false')).ended
  expect(done).toMatchObject({
    code: 0,
    stderr: expect.stringContaining('--notify: the news of this end could not be delivered: it ended (exit code 1)'),
  })
}, 30_000)

it('refuses --notify that can reach nobody before anything begins', async () => {
  const { run } = night()
  const done = await run.start(run.fresh('--notify', 'no-such-mailer')).ended
  expect(done).toMatchObject({
    code: 2 + 1,
    stderr: expect.stringMatching(/^autokernel: --notify: expected a program 'no-such-mailer', found none; .*\n$/),
  })
  expect(existsSync(run.root)).toBe(false)
}, 30_000)

it('says a plain line for each experiment where there is no terminal', async () => {
  const { run } = night()
  const { stderr } = await run.start(run.fresh('--max-experiments', '3')).ended
  const lines = stderr.split('\n').filter((line) => /^ +#\d+ +rmsnorm/.test(line))
  expect(lines).toHaveLength(3)
  for (const line of lines)
    expect(line).toMatch(
      /^ {3}#\d +rmsnorm {2}(KEEP|slower|wrong|within-noise) .* {2}\[best [\d.]+ ±[\d.]+ us(, [\d.]+x the start)?, \d+ % of peak; \d+ s; \d+\/h, ~\d+ s left\]$/,
    )
  expect(stderr).not.toContain('\r')
}, 30_000)
