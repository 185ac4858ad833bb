/** Thousands of experiments cost what the first ones did: time, memory and open files. The whole of it: npm run test:kill. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { median } from '../../src/core/report.ts'
import { manyExperiments } from '../support/many-experiments.ts'

const ALL = process.env.AUTOKERNEL_KILL === 'all'
const MINUTES = 60_000
const folder = mkdtempSync(join(tmpdir(), 'autokernel-soak-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

it.each([
  { experiments: ALL ? 20_000 : 5_000, git: false, ownMb: 30 },
  { experiments: ALL ? 2_000 : 150, git: true, ownMb: 30 },
])(
  '$experiments experiments, git: $git, are as quick and as small at the end as at the beginning',
  { timeout: (ALL ? 30 : 5) * MINUTES },
  async ({ experiments, git, ownMb }) => {
    const root = join(folder, String(git))
    mkdirSync(root)
    const costs = await manyExperiments(root, experiments, git)
    expect(costs).toHaveLength(experiments)
    const fifth = Math.floor(experiments / 5)
    const [early, late] = [costs.slice(fifth, 2 * fifth), costs.slice(-fifth)]
    // Twice: other programs share this machine. What grew with each experiment would be ten times slower here, not two.
    expect(median(late.map(({ ms }) => ms))).toBeLessThan(2 * median(early.map(({ ms }) => ms)) + 2)
    expect(median(late.map(({ ms }) => ms))).toBeLessThan(git ? 500 : 50)
    // Right after a collection, so the least; each experiment stays in its kernel's memory with some hundred bytes.
    const least = (part: typeof costs) => Math.min(...part.map(({ heapMb }) => heapMb))
    expect(least(late) - least(early)).toBeLessThan(ownMb)
    const open = (part: typeof costs) => Math.max(...part.map(({ files }) => files))
    expect(open(late)).toBeLessThanOrEqual(open(early) + 2)
  },
)
