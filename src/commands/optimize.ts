/** autokernel optimize: the whole night, from a model file to a verified optimized/. */
import { existsSync } from 'node:fs'
import { join, relative } from 'node:path'
import { askKeys, type Keys, settleAgents } from '../agent-list.ts'
import { chooseAgent } from '../choose-agent.ts'
import { moneySpent } from '../core/asking.ts'
import { headline } from '../core/report.ts'
import { writtenHash } from '../core/source-hash.ts'
import { passingLine } from '../core/standing.ts'
import { outlasting, pausing, Vigil, type Watch } from '../device-failure.ts'
import type { Order } from '../effects/control.ts'
import { writeAtomically } from '../effects/files.ts'
import { LedgerFile } from '../effects/ledger-file.ts'
import { withFiles } from '../effects/temporary.ts'
import { watchTexts } from '../effects/watch.ts'
import { AuthenticationError, UsageError } from '../errors.ts'
import { type Finish, finishRun } from '../finish.ts'
import { type Held, holdRun } from '../held.ts'
import { Inbox } from '../inbox.ts'
import type { Interruption } from '../interruption.ts'
import type { Io } from '../io.ts'
import { runLoop } from '../loop.ts'
import { addressOf } from '../news.ts'
import { Opened } from '../opened.ts'
import type { Options } from '../options.ts'
import { packageRoot } from '../package-root.ts'
import { performer } from '../perform.ts'
import type { World } from '../ports.ts'
import { watchRun } from '../progress.ts'
import { RunClock } from '../run-clock.ts'
import { type RunFolder, runFolder } from '../run-folder.ts'
import type { CommitSha } from '../schema.ts'
import { chooseRun, modelName, newSession, nothingToDo, resumedSession, type Session } from '../session.ts'
import { modelChange } from '../session-start.ts'
import type { Bill, Event, Happened, State } from '../types.ts'
import { detach } from './detach.ts'

const SHOW_EVERY_MS = 1000

export async function optimize(given: Options, io: Io, interruption: Interruption): Promise<number> {
  const began = performance.now()
  const resume = resumedName(given) ?? existingRun(given, io)
  const options = resume === undefined ? settleAgents(given, io) : { ...given, resume }
  const notify = options.notify === undefined ? null : addressOf(options.notify)
  const now = new Date()
  const folder = await chooseRun(options, io, now)
  if (options.detach && !(await nothingToDo(folder, options))) return detach(folder, options, io)
  const keys = options.resume === undefined ? await askKeys(options, io) : null // whom a resumed run asks, its journal may have to say
  const holding = { folder, io, notify, interrupted: interruption.signal, stopNow: () => interruption.interrupt('SIGTERM') }
  return holdRun(holding, async (held) => {
    const session = options.resume === undefined ? await newSession(held, options, now) : await resumedSession(held, options)
    if (session === null) return 0
    interruption.listen()
    const { signal } = interruption
    const state = await work(session, held, options, keys, signal, began)
    return conclude(session, held, state, signal, watchOn(session, held, options))
  })
}

/** '' means the newest unfinished one. */
function resumedName({ resume, run }: Options): string | undefined {
  if (resume === '' && run !== undefined) return run
  if (resume !== undefined && run !== undefined && resume !== run)
    throw new UsageError(`expected one run, got --run ${run} and --resume ${resume}; --run goes on with a run of that name by itself`)
  return resume
}

/** --run with the name of a run that is there already goes on with it. */
function existingRun({ run }: Options, io: Io): string | undefined {
  return run !== undefined && existsSync(runFolder(io.cwd, run).events) ? run : undefined
}

/** Everything between the plan and the last verdict. */
async function work(
  session: Session,
  held: Held,
  options: Options,
  asked: Keys | null,
  interrupted: AbortSignal,
  began: number,
): Promise<State> {
  const { repo, judge, state } = session
  const { folder, io, control, news } = held
  const inbox = new Inbox<Happened>()
  const opened = new Opened()
  opened.add(inbox.hold(), (letGo) => letGo())
  const clock = opened.add(new RunClock(state.run.elapsedMs, session.events, began), (each) => each.close())
  const underWay = state.judging.phase === 'settling' ? state.judging.row : null
  const due = session.events > 0 ? { rows: session.rows, underWay } : null
  try {
    const ledger = opened.add(await LedgerFile.open(join(io.cwd, 'results.tsv'), folder.name, due), (each) => each.close())
    const texts = opened.add(await watchTexts({ playbook: join(packageRoot, 'program.md'), steer: folder.steer }), (each) => each.close())
    let latest = state
    const { rules } = state.run
    const settled = settleAgents(options, io, rules.agents, rules.maxCostUsd)
    const keys = asked ?? (await askKeys(settled, io))
    const spent = (used: Bill) => limitReached(latest, used)
    const agent = opened.add(await chooseAgent(settled, keys, io, folder, spent), (each) => each.close())
    const vigil = opened.add(new Vigil(watchOn(session, held, options)), (each) => each.close())
    const world: World = {
      evaluator: judge,
      agent: agent.agent,
      repo,
      ledger,
      fileOf: (commit, kernel) => candidateFile(session, folder, commit, kernel),
      withFiles: (sources, use) => withFiles(folder.candidates, sources, use),
      playbook: () => texts.playbook,
      steer: () => texts.steer,
    }
    const perform = pausing(performer(world), (why) => vigil.failed(why))
    const onInterrupt = () => inbox.put({ type: 'stop', reason: 'stopped', detail: 'it was interrupted', now: true })
    interrupted.addEventListener('abort', onInterrupt)
    opened.add(interrupted, (signal) => signal.removeEventListener('abort', onInterrupt))
    const say = watchRun(io, folder)
    const showing = setInterval(() => io.passing(passingLine(latest, clock.now())), SHOW_EVERY_MS)
    opened.add(showing, (timer) => {
      clearInterval(timer)
      io.passing('')
    })
    const observe = (event: Event, now: State) => {
      clock.pause(now.paused)
      say(event, now)
      vigil.follow(now, inbox)
      if (event.type === 'started') {
        // Not before: starting takes back an earlier stop.
        if (interrupted.aborted) onInterrupt()
        control.listen((order) => {
          if (order.order === 'pause') vigil.hold()
          inbox.put(orderedBy(order))
        })
      }
      if (finishes(event) || now.paused !== latest.paused) news.alive(!now.paused)
      const { judging } = latest
      if (event.type === 'settled' && judging.phase === 'settling')
        inbox.expect(agent.tell(writtenHash(judging.experiment.proposal), verdictText(judging)).then(() => null))
      latest = now
    }
    if (rules.runMs !== null) clock.alarm(rules.runMs, () => inbox.put({ type: 'deadline' }))
    return await runLoop(state, inbox, { journal: session.journal, clock, perform, observe })
  } finally {
    control.listen((order) => io.say(`${order.order}: too late, the last experiment is over`))
    news.alive(false)
    await opened.close()
  }
}

function orderedBy(order: Order): Happened {
  if (order.order === 'pause') return { type: 'paused' }
  if (order.order === 'resume') return { type: 'resumed' }
  return { type: 'stop', reason: 'stopped', detail: 'autokernel stop asked for the end', now: order.now }
}

/** Something came of the run's work. */
function finishes({ type }: Event): boolean {
  return type === 'started' || type === 'baselined' || type === 'settled'
}

/** Admits, verifies and reports; an interrupted run is left as it is, to be resumed. */
async function conclude(
  session: Session,
  { folder, io, news }: Held,
  state: State,
  interrupted: AbortSignal,
  watch: Watch,
): Promise<number> {
  const { repo, judge, profile, model, sandbox } = session
  const { stop } = state.run
  const cut = () => {
    io.say(`interrupted; go on with: autokernel optimize --resume ${folder.name}`)
    return interrupted.reason === 'SIGTERM' ? 143 : 130
  }
  if (interrupted.aborted) return cut()
  if (stop?.reason === 'refused')
    throw new AuthenticationError(`${stop.detail}; the run is saved: autokernel optimize --resume ${folder.name}`)
  io.say(`done: ${stop?.detail}`)
  const name = modelName(model, profile)
  const proving: Finish['judge'] = {
    verify: (request, signal) => outlasting(watch, interrupted, () => judge.verify(request, signal)),
  }
  const change = modelChange(session)
  if (change) io.say(`note: ${change}`)
  const of = { profile, model, modelName: name, modelChange: change }
  const finish = { folder, repo, judge: proving, ...of, sandbox, say: io.say, signal: interrupted }
  const ending = await finishRun(state, finish).catch((error: unknown) => {
    if (interrupted.aborted) return null
    throw error
  })
  if (ending === null) return cut()
  const report = relative(io.cwd, folder.report)
  const result = {
    run: folder.name,
    stop_reason: stop?.reason,
    experiments: state.run.counted,
    branch: repo.branch,
    admitted: ending.admitted,
    verification: ending.verification?.verdict ?? null,
    unverified: ending.unverified,
    report,
  }
  const first = headline(ending).replace(/^# /, '')
  if (io.json) io.document(result)
  else io.print([first, `  git log ${repo.branch}`, '  results.tsv', `  ${report}`].join('\n'))
  await news.tell('end', `${folder.name}: ${first}; ${state.run.counted} experiments, ${stop?.detail}`)
  return ending.verification?.verdict === 'fail' || ending.unverified !== null ? 6 : 0
}

function watchOn({ judge }: Session, { folder, io, news }: Held, options: Options): Watch {
  const tell = (text: string): void => void news.tell('stall', `${folder.name}: ${text}`)
  return { judge, patienceMs: options['device-patience'], say: io.say, tell }
}

/** Why no more money may be spent, for agents that have a free one to fall back on. */
function limitReached({ run }: State, { costUsd, tokens, turns }: Bill): string | null {
  const now = { ...run, costUsd: run.costUsd + costUsd, tokens: run.tokens + tokens, turns: run.turns + turns }
  const limit = moneySpent(now)
  return limit && `--${limit} is reached (${now.costUsd.toFixed(2)} USD, ${now.tokens} tokens, ${now.turns} answers)`
}

/** For whoever had the idea: what the judge made of it. */
function verdictText({ experiment, verdict }: State['judging'] & { phase: 'settling' }): string {
  const gain = verdict.gain === null ? '' : `, ${verdict.gain.point.toFixed(3)}x`
  return `${verdict.kind === 'discard' ? verdict.why : verdict.kind} (experiment ${experiment.number}${gain})${verdict.kind === 'keep' ? '' : `\n\n${verdict.detail}`}\n`
}

/** The very bytes of the commit, in a file that the judge copies and hashes. */
async function candidateFile({ repo }: Session, folder: RunFolder, commit: CommitSha, kernel: string): Promise<string> {
  const path = join(folder.candidates, `${commit.slice(0, 16)}-${kernel}.py`)
  if (!existsSync(path)) await writeAtomically(path, await repo.source(commit, kernel)) // half of one would be judged for the whole
  return path
}
