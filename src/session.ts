/** A run opened for work, new or resumed: its journal, repository, judge and state. */
import { existsSync, readFileSync, realpathSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import { finished, step } from './core/machine.ts'
import { past, replay } from './core/recover.ts'
import { rowsOf } from './core/rows.ts'
import { writeAtomically } from './effects/files.ts'
import { FORMAT, JournalFile, readJournal } from './effects/journal.ts'
import type { Judge } from './effects/judge.ts'
import { refuseForeignLedger } from './effects/ledger-file.ts'
import { profileModel } from './effects/profiler.ts'
import { RunRepo } from './effects/repo.ts'
import { findRepository } from './effects/repository.ts'
import { UsageError } from './errors.ts'
import type { Held } from './held.ts'
import type { Io } from './io.ts'
import { inTurn, openRoom, type Room, startJudge } from './machine-room.ts'
import type { Options } from './options.ts'
import { findModel } from './package-root.ts'
import { commitStart, parseSelection, selectTargets, starterFile } from './prepare.ts'
import { profileTable } from './profile-table.ts'
import type { Row } from './row.ts'
import { changedRules, readRules } from './rules.ts'
import { allRuns, findRun, newRunName, type RunFolder, runFolder } from './run-folder.ts'
import { type ModelSpec, Profile } from './schema.ts'
import { fileHash, type Start, startOf } from './session-start.ts'
import type { Rules, State } from './types.ts'

export type Session = {
  room: Room
  model: ModelSpec
  model_hash: string | null // of its file when the run began
  profile: Profile
  journal: JournalFile
  repo: RunRepo
  judge: Judge
  sandbox: string // what really confines the candidates, in the judge's words
  state: State
  events: number // already in the journal
  rows: Row[] // that results.tsv must hold by now
}

export const modelName = (model: ModelSpec, profile: Profile): string => `${basename(model.file)} (${profile.model_class}, ${model.dtype})`

/** Which run is meant, new or resumed; refuses what cannot work before anything is made or started. */
export async function chooseRun(options: Options, io: Io, now: Date): Promise<RunFolder> {
  if (options.resume !== undefined) return options.resume ? findRun(io.cwd, options.resume) : newestUnfinished(io)
  if (options.model === undefined) throw new UsageError('--model: expected a Python file with a PyTorch model, such as --model llama.py')
  const { file } = findModel(options.model, io.cwd)
  const repository = await findRepository(io.cwd)
  if (options.kernels !== undefined) parseSelection(options.kernels)
  const folder = runFolder(io.cwd, options.run ?? newRunName(file, now, Math.random()))
  if (!existsSync(folder.starting)) await RunRepo.refuseTaken(repository, folder.name, folder.worktree)
  refuseForeignLedger(join(io.cwd, 'results.tsv'))
  return folder
}

/** Null when --dry-run has shown all that it shows. */
export async function newSession({ folder, io, opened }: Held, options: Options, startedAt: Date): Promise<Session | null> {
  const { file, className } = findModel(options.model ?? '', io.cwd)
  const repository = await findRepository(io.cwd)
  const rules = readRules(options)
  const room = await openRoom(options, io)
  const model: ModelSpec = {
    file,
    class_name: options.class ?? className,
    input_shape: options['input-shape'] ?? null,
    dtype: room.dtype,
    device: room.device,
    seed: options.seed ?? 0,
  }
  const model_hash = fileHash(file)

  io.say(`profiling ${basename(file)} on ${room.device} (${room.dtype}) ...`)
  const profile = await inTurn(room, io.say, () => profileModel({ python: room.python, model, say: io.say }))
  const targets = selectTargets(profile, room.backend, options.kernels)
  for (const target of targets) starterFile(target.op, target.backend)
  io.say(profileTable(profile, targets))
  if (options['dry-run']) return null
  const judge = opened.add(startJudge(room, folder.judgeLog, io.say, options['allow-tf32']), (each) => each.close())
  const hello = await judge.hello()
  const begun = existsSync(folder.starting)
  await writeAtomically(folder.starting, `${repository.head}\n`) // from here on the branch of that name is ours, journal or not
  const repo = await RunRepo.create(repository, folder.name, folder.worktree, begun)
  const run = await commitStart(repo, folder, profile, targets, hello, rules, startedAt.toISOString())
  const { python: _, ...portable } = room
  const start: Start = { run, model, model_hash, room: portable, allow_tf32: options['allow-tf32'] ?? false }
  const journal = opened.add(await JournalFile.create(folder.events, { format: FORMAT, run: folder.name, start }), (each) => each.close())
  rmSync(folder.starting)
  return { room, model, model_hash, profile, journal, repo, judge, sandbox: hello.sandbox, state: replay(run, []), events: 0, rows: [] }
}

/** Null when the run is finished and nothing asks for more. */
export async function resumedSession({ folder, io, opened }: Held, options: Options): Promise<Session | null> {
  const repository = await findRepository(io.cwd)
  const { journal, recorded } = await JournalFile.resume(folder.events)
  opened.add(journal, (each) => each.close())
  const start = startOf(recorded.header, folder)
  if (options.model !== undefined) mustBeOf(start.model.file, findModel(options.model, io.cwd).file, folder)
  const { state: before, candidates } = past(start.run, recorded.events)
  const rules = changedRules(before.run.rules, options)
  if (existsSync(folder.report) && nothingLeft(before, rules)) {
    io.print(
      `run ${folder.name} is finished (${before.run.stop?.detail}): ${folder.report}; it goes on with more --hours or --max-experiments`,
    )
    return null
  }
  const profile = savedProfile(folder.profile)
  const { python } = await openRoom({ ...options, device: start.room.device }, io)
  const room: Room = { ...start.room, python }
  const judge = opened.add(startJudge(room, folder.judgeLog, io.say, start.allow_tf32), (each) => each.close())
  const hello = await judge.hello()
  if (hello.judge_hash !== start.run.judgeHash)
    io.say('note: the judge has changed since this run began; rows from before and after are not comparable')
  const repo = await RunRepo.open(repository, folder.name, folder.worktree, before.run.best)
  await repo.restore(candidates)
  rmSync(folder.report, { force: true }) // unfinished again
  const state: State = { ...before, run: { ...before.run, rules } }
  io.say(`resuming ${folder.name}: ${state.run.counted} experiments so far`)
  if (state.paused) io.say('it was paused when it ended; it goes on now (autokernel pause holds it again)')
  return {
    room,
    model: start.model,
    model_hash: start.model_hash,
    profile,
    journal,
    repo,
    judge,
    sandbox: hello.sandbox,
    state,
    events: recorded.events.length,
    rows: rowsOf(start.run, recorded.events),
  }
}

/** Whether a run has its report, and these options ask for no more. */
export async function nothingToDo(folder: RunFolder, options: Options): Promise<boolean> {
  if (!existsSync(folder.report)) return false
  const { header, events } = await readJournal(folder.events)
  const { state } = past(startOf(header, folder).run, events)
  return nothingLeft(state, changedRules(state.run.rules, options))
}

/** A name that is given again with another model is a mistake: the run would go on with its own. */
function mustBeOf(file: string, given: string, { name }: RunFolder): void {
  const real = existsSync(file) ? realpathSync(file) : file
  if (realpathSync(given) !== real) throw new UsageError(`--model: run ${name} is of ${file}, got ${given}; choose another --run for it`)
}

function savedProfile(path: string): Profile {
  const found = existsSync(path) ? Profile.safeParse(contents(path)).data : null
  if (found) return found
  const what = found === null ? 'nothing' : 'something else'
  throw new UsageError(`${path}: expected the profile that the run began with, found ${what}; restore the file, or start a new run`)
}

function contents(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'))
  } catch {
    return null
  }
}

function nothingLeft(state: State, rules: Rules): boolean {
  const started = { type: 'started', rules, seq: 0, at: state.run.elapsedMs, wall: state.run.settledAt } as const
  const next = step(state, started).state
  return finished(next) && next.judging.phase === 'idle'
}

function newestUnfinished(io: Io): RunFolder {
  const runs = allRuns(io.cwd)
  const found = runs.find((run) => !existsSync(run.report))
  if (found) return found
  const newest = runs[0]
  throw new UsageError(
    newest
      ? `every run here is finished; the newest is ${newest.name}: go on with it by name, --resume ${newest.name} --hours N`
      : 'there is no run here to resume; start one: autokernel optimize --model FILE',
  )
}
