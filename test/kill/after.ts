/** What must be true of a run's folders: at any moment at all, and after a run that came to its end. */
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { join, relative } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'vitest'
import { decide } from '../../src/core/judge.ts'
import { formatRow } from '../../src/core/ledger.ts'
import { past } from '../../src/core/recover.ts'
import { rowsOf } from '../../src/core/rows.ts'
import { readJournal } from '../../src/effects/journal.ts'
import type { Row } from '../../src/row.ts'
import { runFolder } from '../../src/run-folder.ts'
import { startOf } from '../../src/session-start.ts'
import { RUN, type Scene } from './scene.ts'

const git = (folder: string, ...args: string[]): string =>
  execFileSync('git', ['-C', folder, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })

export type Result = { branch: string; refs: string; rows: string[]; user: Record<string, string>; report: string }

/** What came of a run, so far as it must not depend on when it was killed. */
export function resultOf({ folder }: Scene): Result {
  return {
    branch: git(folder, 'log', '--first-parent', '--format=%H %s', `main..autokernel/${RUN}`),
    refs: git(folder, 'for-each-ref', '--format=%(refname) %(objectname)', 'refs/autokernel'),
    rows: tableRows(folder).map((line) => line.split('\t').with(19, 'wall_s').join('\t')),
    user: usersSide(folder),
    report: readFileSync(runFolder(folder, RUN).report, 'utf8').replace(/\d+(\.\d+)? (s|min|h|% of that time)\b/g, 'some time'),
  }
}

function tableRows(folder: string): string[] {
  const path = join(folder, 'results.tsv')
  if (!existsSync(path)) return []
  const text = readFileSync(path, 'utf8')
  return text
    .slice(0, text.lastIndexOf('\n') + 1)
    .split('\n')
    .filter((line) => line.startsWith(`${RUN}\t`))
}

/** Every byte of the user's: files, index, HEAD, branches, configuration, hooks. What a run may add is left out. */
export function usersSide(folder: string): Record<string, string> {
  const ours =
    /^(\.autokernel|results\.tsv|\.git\/(objects|worktrees|logs\/refs\/heads\/autokernel|refs\/autokernel|refs\/heads\/autokernel))(\/|$)/
  const files = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((path) => !ours.test(relative(folder, path)))
  return Object.fromEntries(files.sort().map((path) => [relative(folder, path), readFileSync(path, 'latin1')]))
}

/** True whenever the run is dead: nothing was done that the journal did not know first, and no commit is kept without its row. */
export async function expectJournalledFirst({ folder, journal }: Scene): Promise<void> {
  if (!existsSync(journal)) {
    expect(tableRows(folder)).toEqual([])
    return
  }
  const { header, events } = await readJournal(journal)
  const start = startOf(header, runFolder(folder, RUN))
  const { state, candidates } = past(start.run, events)
  const made = git(folder, 'for-each-ref', '--format=%(refname:lstrip=3)', `refs/autokernel/${RUN}`).split('\n').filter(Boolean)
  const asked = candidates.map(({ number }) => String(number))
  expect(made.filter((number) => !asked.includes(number))).toEqual([])

  const known = (row: Row): string => formatRow(row).split('\t').with(3, 'commit').join('\t')
  const underWay = state.judging.phase === 'settling' ? [state.judging.row] : []
  const may = [...rowsOf(start.run, events), ...underWay].map(known)
  const written = tableRows(folder)
  expect(written.map((line) => line.split('\t').with(3, 'commit').join('\t')).filter((line) => !may.includes(line))).toEqual([])

  const messages = git(folder, 'log', '--format=%B', `main..autokernel/${RUN}`)
  for (const [, number] of messages.matchAll(/^Autokernel-Experiment: (\d+)$/gm))
    expect(
      written.filter((line) => line.split('\t')[1] === number),
      `row of kept experiment ${number}`,
    ).toHaveLength(1)
}

/** True of a run at its end, however it came to it; `reference` is one with the same seed that was left alone. */
export async function expectUndisturbed(scene: Scene, reference: Result): Promise<void> {
  const { folder } = scene
  expect(resultOf(scene)).toEqual(reference)
  await expectJournalledFirst(scene)
  await expectHonestVerdicts(scene)
  expect(git(folder, 'fsck', '--strict', '--no-dangling', '--no-progress')).toBe('')
  const locks = readdirSync(join(folder, '.git'), { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.lock'))
  expect(locks).toEqual([])
  expect(git(join(folder, '.autokernel', 'runs', RUN, 'worktree'), 'status', '--porcelain')).toBe('')
  await expectNobodyIn(folder)
}

/** Every row is what the journal says, each experiment was settled once, and what was kept or not follows from the samples. */
async function expectHonestVerdicts({ folder, journal }: Scene): Promise<void> {
  const { header, events } = await readJournal(journal)
  const { run } = startOf(header, runFolder(folder, RUN))
  const rows = rowsOf(run, events)
  expect(tableRows(folder)).toEqual(rows.map(formatRow))
  const numbers = events.flatMap((event) => (event.type === 'settled' ? [event.number] : []))
  expect(numbers).toEqual(numbers.map((_, i) => i + 1))
  for (const number of numbers) {
    const check = events.flatMap((event) => (event.type === 'checked' && event.number === number ? [event.check.verdict] : []))
    const rounds = events.flatMap((event) => (event.type === 'timed' && event.number === number ? event.timing.rounds : []))
    const status = rows.find(({ experiment }) => experiment === number)?.status
    expect(check).toHaveLength(1)
    if (check[0] !== 'pass') expect(status).toBe(check[0])
    else {
      const decision = decide(rounds, run.targets.rmsnorm?.target.shapes ?? [], run.rules)
      expect(decision.kind === 'verdict' && decision.verdict.kind).toBe(status)
    }
  }
}

/** Whether two crashes cut off one measurement, which is then given up: only so does a result show when the run was killed. */
export async function wasGivenUp({ folder, journal }: Scene): Promise<boolean> {
  const { header, events } = await readJournal(journal)
  const { run } = startOf(header, runFolder(folder, RUN))
  const given = rowsOf(run, events).filter(({ status }) => status === 'interrupted')
  return given.some(({ experiment }) => {
    const at = (type: 'committed' | 'settled') => events.findIndex((event) => event.type === type && event.number === experiment)
    return events.slice(at('committed'), at('settled')).filter(({ type }) => type === 'started').length === 2
  })
}

/** No process of the run is left. One that was told to end has a moment to do so. */
async function expectNobodyIn(folder: string): Promise<void> {
  const until = performance.now() + 5000
  while (processesIn(folder).length > 0 && performance.now() < until) await sleep(20)
  expect(processesIn(folder)).toEqual([])
}

export function processesIn(folder: string): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const inside = readlinkSync(`/proc/${pid}/cwd`)
        if (inside !== folder && !inside.startsWith(`${folder}/`)) return []
        return [`${pid} ${readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ')}`]
      } catch {
        return [] // ended meanwhile, or not ours to look at
      }
    })
}
