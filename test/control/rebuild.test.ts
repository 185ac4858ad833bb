import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { Night } from '../support/table-night.ts'

async function aNight(): Promise<{ run: Night; ledger: string }> {
  const run = new Night()
  onTestFinished(() => run.remove())
  const done = await run.start(run.fresh('--max-experiments', '6')).ended
  expect(done, done.stderr).toMatchObject({ code: 0 })
  expect(run.world.rows().map((row) => row.status)).toContain('keep')
  return { run, ledger: join(run.world.folder, 'results.tsv') }
}

it('results --rebuild writes the very bytes again, from events.jsonl alone, and leaves other runs as they are', async () => {
  const { run, ledger } = await aNight()
  const before = readFileSync(ledger, 'utf8')
  expect((await run.say('results', '--rebuild')).stdout).toMatch(/^night: \d+ rows from its journal; results.tsv held them already$/)
  const journal = run.read('events.jsonl')
  for (const name of readdirSync(run.root)) if (name !== 'events.jsonl') rmSync(join(run.root, name), { recursive: true })
  rmSync(ledger)
  expect(await run.say('results', '--rebuild', '--run', 'night')).toMatchObject({
    code: 0,
    stdout: expect.stringContaining('written anew'),
  })
  expect(readFileSync(ledger, 'utf8')).toBe(before)
  expect(run.read('events.jsonl')).toBe(journal)

  const [header = '', ...rows] = before.trimEnd().split('\n')
  const foreign = rows.map((row) => row.replace(/^night/, 'other'))
  writeFileSync(ledger, [header, ...foreign, rows[0], rows[2]?.replace('\t0\t', '\t99\t'), ''].join('\n'))
  expect(await run.say('results', '--rebuild', '--run', 'night')).toMatchObject({ code: 0 })
  expect(readFileSync(ledger, 'utf8')).toBe(`${[header, ...foreign, ...rows].join('\n')}\n`)
}, 60_000)

it('results --rebuild refuses a file that is no ledger, and one that a run is writing to', async () => {
  const { run, ledger } = await aNight()
  const before = readFileSync(ledger, 'utf8')
  writeFileSync(ledger, 'name,age\n')
  expect(await run.say('results', '--rebuild')).toMatchObject({ code: 2, stderr: expect.stringContaining("found 'name,age'") })
  expect(readFileSync(ledger, 'utf8')).toBe('name,age\n')
  writeFileSync(ledger, before)
  run.pace(30)
  const { ended } = run.start(run.again('--max-experiments', '9'))
  await run.until(() => run.judges().length > 0)
  expect(await run.say('results', '--rebuild')).toMatchObject({ code: 2, stderr: expect.stringContaining('run night is running') })
  await run.say('stop', '--now')
  await ended
}, 60_000)

it('rerun judges a candidate again beside its parent and changes nothing', async () => {
  const { run, ledger } = await aNight()
  const state = () => [
    readFileSync(ledger, 'utf8'),
    run.read('events.jsonl'),
    run.world.git('for-each-ref'),
    run.world.git('status', '--porcelain'),
  ]
  const before = state()
  const row = run.world.rows().find(({ status }) => status === 'keep')
  const again = await run.say('rerun', String(row?.experiment), '--python', run.python)
  expect(again, again.stderr).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/^experiment \d+: rmsnorm, keep, [\d.]+x .* pairs of fresh processes\n {2}then: keep, [\d.]+x$/),
  })
  expect(again.stdout).toContain(`${Number(row?.speedup_incumbent).toFixed(3)}x (`)
  expect(state()).toEqual(before)
  expect(run.judges()).toEqual([])
  expect(await run.say('rerun', '99', '--python', run.python)).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('has no experiment 99'),
  })
}, 60_000)
