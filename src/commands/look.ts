/** Commands that only look at a run: status, show, diff, report. They read the journal, which may be growing meanwhile. */
import { existsSync, readFileSync } from 'node:fs'
import { peakShare } from '../core/advance.ts'
import { eventsOf, replay } from '../core/recover.ts'
import { duration } from '../core/report.ts'
import { inHand, pace } from '../core/standing.ts'
import { type Header, readJournal } from '../effects/journal.ts'
import { lockOwner } from '../effects/lock.ts'
import { findRepository } from '../effects/repository.ts'
import { UsageError } from '../errors.ts'
import { type Io, table } from '../io.ts'
import type { Options } from '../options.ts'
import { findRun, findStarted, type RunFolder } from '../run-folder.ts'
import { startOf } from '../session-start.ts'
import type { Attempt, Event, State } from '../types.ts'

/** A run as its journal has it. */
export async function openRun(
  name: string | undefined,
  io: Io,
): Promise<{ folder: RunFolder; header: Header; state: State; events: Event[] }> {
  const folder = findRun(io.cwd, name)
  const { header, events } = await readJournal(folder.events)
  return { folder, header, state: replay(startOf(header, folder).run, events), events }
}

export async function status(name: string | undefined, io: Io): Promise<number> {
  const folder = findStarted(io.cwd, name)
  const pid = lockOwner(folder.lock)
  if (!existsSync(folder.events)) return notPlanned(folder, pid, io)
  const { state, events } = await openRun(folder.name, io)
  const { run, paused } = state
  const finished = existsSync(folder.report)
  const phase =
    pid === null ? (finished ? 'finished' : 'not running') : `${paused ? 'paused' : finished ? 'ending' : 'running'} (pid ${pid})`
  // Whoever measures for minutes writes nothing meanwhile.
  const last = pid === null || paused ? undefined : events.at(-1)
  const elapsedMs = run.elapsedMs + (last ? Math.max(0, Date.now() - Date.parse(last.wall)) : 0)
  const kernels = run.order.map((key) => run.targets[key]).filter((t) => t !== undefined)
  const doc = {
    run: run.name,
    phase,
    stop_reason: run.stop?.reason ?? null,
    current: run.current,
    experiments: run.counted,
    elapsed_s: Math.round(elapsedMs / 1000),
    doing: pid === null ? null : inHand(state),
    cost_usd: run.costUsd,
    tokens: run.tokens,
    turns: run.turns,
    ready: state.proposing.ready.length,
    asked: state.proposing.asked.length,
    kernels: kernels.map((t) => ({
      kernel: t.target.name,
      share: t.target.share,
      latency_us: t.latency?.us ?? null,
      latency_ci95_us: t.latency?.ci95 ?? null,
      start_us: t.baselines?.start.us ?? null,
      pct_peak: 100 * peakShare(t),
      tried: t.attempts.length,
      kept: t.keeps,
      left: t.left,
    })),
  }
  if (io.json) {
    io.document(doc)
    return 0
  }
  io.print(
    `${run.name}: ${phase}${run.stop ? `, ${run.stop.detail}` : ''}; ${run.counted} experiments in ${duration(elapsedMs)}, ${run.costUsd.toFixed(2)} USD${run.turns > 0 ? ` for ${run.turns} answers` : ''}`,
  )
  if (pid !== null) io.print([inHand(state), pace(run, elapsedMs)].filter((part) => part !== '').join('; '))
  const head = ['kernel', 'share', 'start us', 'now us', 'of peak', 'tried', 'kept', '']
  io.print(
    table([
      head,
      ...doc.kernels.map((k) => [
        k.kernel,
        `${(100 * k.share).toFixed(1)} %`,
        k.start_us?.toFixed(1) ?? '-',
        k.latency_us === null ? '-' : `${k.latency_us.toFixed(1)} ±${(k.latency_ci95_us ?? 0).toFixed(1)}`,
        `${k.pct_peak.toFixed(0)} %`,
        String(k.tried),
        String(k.kept),
        k.kernel === run.current ? 'current' : (k.left ?? ''),
      ]),
    ]),
  )
  return 0
}

function notPlanned({ name, log }: RunFolder, pid: string | null, io: Io): number {
  const phase = pid === null ? 'ended while it was being planned' : `being planned (pid ${pid})`
  if (io.json) io.document({ run: name, phase, pid: pid === null ? null : Number(pid) })
  else io.print(`${name}: ${phase}; its log: ${log}`)
  return 0
}

export async function show(text: string, options: Options, io: Io): Promise<number> {
  const { state, events } = await openRun(options.run, io)
  const { attempt, kernel } = attemptOf(state, text)
  const seen = eventsOf(events, attempt.experiment)
  const check = seen.flatMap((e) => ((e.type === 'checked' || e.type === 'confirmed') && e.check ? [e.check] : [])).at(-1) ?? null // the last
  const rounds = seen.flatMap((e) => (e.type === 'timed' ? e.timing.rounds : []))
  const committed = seen.find((e) => e.type === 'committed')
  if (io.json) {
    io.document({
      ...attempt,
      kernel,
      commit: committed?.type === 'committed' ? committed.commit : null,
      check,
      rounds,
    })
    return 0
  }
  io.print(`experiment ${attempt.experiment}: ${kernel}, ${attempt.outcome}${attempt.gain === null ? '' : `, ${attempt.gain.toFixed(3)}x`}`)
  io.print(`  idea (${attempt.agent}): ${attempt.hypothesis}`)
  if (attempt.detail) io.print(`  ${attempt.detail}`)
  if (check !== null) {
    for (const stage of check.stages)
      io.print(
        `  ${stage.status.padEnd(7)} ${stage.name.padEnd(12)} ${stage.cases} cases, ${stage.seconds.toFixed(2)} s${stage.detail ? `: ${stage.detail}` : ''}`,
      )
  }
  if (rounds.length > 0)
    io.print(`  timed over ${rounds.length} pairs of fresh processes, ${rounds.filter((r) => r.disturbed !== null).length} disturbed`)
  if (committed?.type === 'committed') io.print(`  commit ${committed.commit}`)
  return 0
}

export async function diff(text: string, options: Options, io: Io): Promise<number> {
  const { state, events } = await openRun(options.run, io)
  const { attempt } = attemptOf(state, text)
  const committed = events.find((e) => e.type === 'committed' && e.number === attempt.experiment)
  if (committed?.type !== 'committed')
    throw new UsageError(`experiment ${attempt.experiment} has no commit: its answer could not be judged (${attempt.detail})`)
  const { git } = await findRepository(io.cwd)
  const patch = await git.run(['diff', '--no-ext-diff', '--no-textconv', `${committed.commit}^`, committed.commit])
  if (io.json) io.document({ experiment: attempt.experiment, commit: committed.commit, patch })
  else io.print(patch.trimEnd())
  return 0
}

export async function report(name: string | undefined, io: Io): Promise<number> {
  const folder = findRun(io.cwd, name)
  if (!existsSync(folder.report))
    throw new UsageError(`run ${folder.name} has no REPORT.md yet; it is written at the end: autokernel optimize --resume ${folder.name}`)
  const text = readFileSync(folder.report, 'utf8')
  if (io.json) io.document({ run: folder.name, report: text })
  else io.print(text.trimEnd())
  return 0
}

export function attemptOf(state: State, text: string): { attempt: Attempt; kernel: string } {
  const number = Number(text)
  if (!Number.isSafeInteger(number) || number < 1) throw new UsageError(`expected the number of an experiment such as 12, got '${text}'`)
  for (const target of Object.values(state.run.targets)) {
    const attempt = target.attempts.find((a) => a.experiment === number)
    if (attempt) return { attempt, kernel: target.target.name }
  }
  throw new UsageError(`run ${state.run.name} has no experiment ${number} with a verdict; it has ${state.run.counted}`)
}
