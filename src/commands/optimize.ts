/** autokernel optimize: the whole night, from a model file to a verified optimized/. */
import { existsSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { settleAgents } from '../agent-list.ts'
import { chooseAgent } from '../choose-agent.ts'
import { moneySpent } from '../core/asking.ts'
import { headline } from '../core/report.ts'
import { LedgerFile } from '../effects/ledger-file.ts'
import { watchTexts } from '../effects/watch.ts'
import { AuthenticationError } from '../errors.ts'
import { finishRun } from '../finish.ts'
import { Inbox } from '../inbox.ts'
import type { Io } from '../io.ts'
import { runLoop } from '../loop.ts'
import type { Options } from '../options.ts'
import { packageRoot } from '../package-root.ts'
import { performer } from '../perform.ts'
import { watchRun } from '../progress.ts'
import type { CommitSha } from '../schema.ts'
import { modelName, newSession, resumedSession, type Session } from '../session.ts'
import type { Bill, Clock, Event, Happened, State } from '../types.ts'
import type { Interruption } from './index.ts'

export async function optimize(given: Options, io: Io, { signal: interrupted, listen }: Interruption): Promise<number> {
  const began = performance.now()
  const options = given.resume === undefined ? settleAgents(given, io) : given
  const session = options.resume === undefined ? await newSession(options, io, new Date()) : await resumedSession(options, io)
  if (session === null) return 0
  listen()
  try {
    const state = await work(session, options, io, interrupted, began)
    return await conclude(session, state, io, interrupted)
  } finally {
    await session.judge.close()
    await session.journal.close()
    await session.lock.release()
  }
}

/** Everything between the plan and the last verdict. */
async function work(session: Session, options: Options, io: Io, interrupted: AbortSignal, began: number): Promise<State> {
  const { folder, repo, judge, state } = session
  const inbox = new Inbox<Happened>()
  const letGo = inbox.hold()
  const ledger = await LedgerFile.open(join(io.cwd, 'results.tsv'), folder.name)
  const texts = await watchTexts({ playbook: join(packageRoot, 'program.md'), steer: folder.steer })
  let latest = state
  const { rules } = state.run
  const settled = settleAgents(options, io, rules.agents, rules.maxCostUsd)
  const agent = await chooseAgent(settled, io, folder, (used) => limitReached(latest, used))
  const clock = runClock(state, session.events, began)
  const perform = performer({
    evaluator: judge,
    agent: agent.agent,
    repo,
    ledger,
    fileOf: (commit, kernel) => candidateFile(session, commit, kernel),
    playbook: () => texts.playbook,
    steer: () => texts.steer,
  })
  const onInterrupt = () => inbox.put({ type: 'stop', reason: 'stopped', detail: 'it was interrupted', now: true })
  if (interrupted.aborted) onInterrupt()
  interrupted.addEventListener('abort', onInterrupt)
  const say = watchRun(io, folder)
  const observe = (event: Event, now: State) => {
    say(event, now)
    const { judging } = latest
    if (event.type === 'settled' && judging.phase === 'settling')
      inbox.expect(agent.tell(judging.experiment.proposal.source, verdictText(judging)).then(() => null))
    latest = now
  }
  const { runMs } = rules
  const deadline = runMs === null ? null : setTimeout(() => inbox.put({ type: 'deadline' }), Math.max(0, runMs - clock.now()))
  try {
    return await runLoop(state, inbox, { journal: session.journal, clock, perform, observe })
  } finally {
    letGo()
    if (deadline) clearTimeout(deadline)
    interrupted.removeEventListener('abort', onInterrupt)
    await agent.close()
    await texts.close()
    await ledger.close()
  }
}

/** Admits, verifies and reports; an interrupted run is left as it is, to be resumed. */
async function conclude(session: Session, state: State, io: Io, interrupted: AbortSignal): Promise<number> {
  const { folder, repo, judge, profile, model, sandbox } = session
  const { stop } = state.run
  if (interrupted.aborted) {
    io.say(`interrupted; go on with: autokernel optimize --resume ${folder.name}`)
    return interrupted.reason === 'SIGTERM' ? 143 : 130
  }
  if (stop?.reason === 'refused')
    throw new AuthenticationError(`${stop.detail}; the run is saved: autokernel optimize --resume ${folder.name}`)
  io.say(`done: ${stop?.detail}`)
  const name = modelName(model, profile)
  const ending = await finishRun(state, { folder, repo, judge, profile, model, modelName: name, sandbox, say: io.say })
  const report = relative(io.cwd, folder.report)
  const result = {
    run: folder.name,
    stop_reason: stop?.reason,
    experiments: state.run.counted,
    branch: repo.branch,
    admitted: ending.admitted,
    verification: ending.verification?.verdict ?? null,
    report,
  }
  if (io.json) io.document(result)
  else io.print([headline(ending).replace(/^# /, ''), `  git log ${repo.branch}`, '  results.tsv', `  ${report}`].join('\n'))
  return ending.verification?.verdict === 'fail' ? 6 : 0
}

/** Why no more money may be spent, for agents that have a free one to fall back on. */
function limitReached({ run }: State, { costUsd, tokens }: Bill): string | null {
  const now = { ...run, costUsd: run.costUsd + costUsd, tokens: run.tokens + tokens }
  const limit = moneySpent(now)
  return limit && `--${limit} is reached (${now.costUsd.toFixed(2)} USD, ${now.tokens} tokens, ${now.turns} answers)`
}

/** For whoever had the idea: what the judge made of it. */
function verdictText({ experiment, verdict }: State['judging'] & { phase: 'settling' }): string {
  const gain = verdict.gain === null ? '' : `, ${verdict.gain.point.toFixed(3)}x`
  return `${verdict.kind === 'discard' ? verdict.why : verdict.kind} (experiment ${experiment.number}${gain})${verdict.kind === 'keep' ? '' : `\n\n${verdict.detail}`}\n`
}

/** The run's own time goes on where it stopped, and stands still while the run is down. */
function runClock(state: State, seq: number, began: number): Clock & { now: () => number } {
  const before = state.run.elapsedMs
  let next = seq
  const now = () => Math.round(before + performance.now() - began)
  return { now, stamp: (happened) => ({ ...happened, seq: next++, at: now(), wall: new Date().toISOString() }) }
}

/** The very bytes of the commit, in a file that the judge copies and hashes. */
async function candidateFile({ folder, repo }: Session, commit: CommitSha, kernel: string): Promise<string> {
  const path = join(folder.candidates, `${commit.slice(0, 16)}-${kernel}.py`)
  if (!existsSync(path)) writeFileSync(path, await repo.source(commit, kernel))
  return path
}
