/** The run folder .autokernel/runs/<run>/: where things are, and which runs there are. */
import { accessSync, constants, existsSync, mkdirSync, readdirSync, realpathSync, statSync, writeFileSync } from 'node:fs'
import { basename, dirname, extname, join } from 'node:path'
import { cannotWrite } from './effects/files.ts'
import { EnvironmentError, UsageError } from './errors.ts'

export type RunFolder = {
  name: string
  root: string
  events: string
  starting: string // there while a start is under way
  plan: string
  profile: string
  worktree: string
  reports: string
  llm: string
  inbox: string
  candidates: string
  report: string
  steer: string
  lock: string
  judgeLog: string
  log: string
  control: string
}

export function runFolder(start: string, name: string): RunFolder {
  const root = join(start, '.autokernel', 'runs', name)
  const at = (file: string) => join(root, file)
  return {
    name,
    root,
    events: at('events.jsonl'),
    starting: at('starting'),
    plan: at('plan.json'),
    profile: at('profile.json'),
    worktree: at('worktree'),
    reports: at('bench'),
    llm: at('llm'),
    inbox: at('inbox'),
    candidates: at('candidates'),
    report: at('REPORT.md'),
    steer: at('steer.md'),
    lock: at('lock'),
    judgeLog: at('judge.log'),
    log: at('log.txt'),
    control: at('control.jsonl'),
  }
}

/** Makes the folder, and the .gitignore that keeps all of .autokernel out of the user's git. */
export function makeRunFolder(start: string, name: string): RunFolder {
  const folder = runFolder(start, name)
  try {
    for (const place of [start, join(start, '.autokernel'), dirname(folder.root), folder.root]) mustBeWritable(place)
    mkdirSync(folder.reports, { recursive: true })
    mkdirSync(folder.candidates, { recursive: true })
    writeFileSync(join(start, '.autokernel', '.gitignore'), '*\n')
  } catch (cause) {
    const known = cannotWrite(start, cause)
    if (known instanceof EnvironmentError) throw known
    const code = (cause as NodeJS.ErrnoException).code
    throw new EnvironmentError(`expected to write to ${start}, found ${code}; start in a folder you can write to, or pass -C DIR`, {
      cause,
    })
  }
  return folder
}

/** What is there already of the way to a run: mkdir says ENOENT of a read-only disk, and not what is in its way. */
function mustBeWritable(place: string): void {
  const found = statSync(place, { throwIfNoEntry: false })
  if (found === undefined) return
  if (!found.isDirectory()) throw new EnvironmentError(`${place}: expected a folder, found a file; move it away`)
  try {
    accessSync(place, constants.W_OK)
  } catch (error) {
    throw cannotWrite(place, error)
  }
}

/** Newest first, by when its journal was last written. */
export function allRuns(start: string): RunFolder[] {
  const runs = join(start, '.autokernel', 'runs')
  if (!existsSync(runs)) return []
  return readdirSync(runs)
    .map((name) => runFolder(start, name))
    .filter((folder) => existsSync(folder.events))
    .sort((a, b) => statSync(b.events).mtimeMs - statSync(a.events).mtimeMs)
}

/** A run by name, also one whose planning has not come to a journal yet; without a name the one that said something last. */
export function findStarted(start: string, name: string | undefined): RunFolder {
  const runs = join(start, '.autokernel', 'runs')
  const names = existsSync(runs) ? readdirSync(runs) : []
  const started = names
    .map((each) => runFolder(start, each))
    .map((folder) => ({ folder, at: Math.max(writtenAt(folder.log), writtenAt(folder.events)) }))
    .filter(({ folder, at }) => at > 0 && (name === undefined || folder.name === name))
    .sort((a, b) => b.at - a.at)
  return started[0]?.folder ?? findRun(start, name)
}

const writtenAt = (file: string): number => statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0

export function findRun(start: string, name: string | undefined): RunFolder {
  const runs = allRuns(start)
  if (name === undefined) {
    const newest = runs[0]
    if (!newest)
      throw new UsageError(
        `expected a run in ${join(realpathSync(start), '.autokernel')}, found none; start one: autokernel optimize --model FILE`,
      )
    return newest
  }
  const found = runs.find((run) => run.name === name)
  if (!found)
    throw new UsageError(
      `no run '${name}' here; there ${runs.length === 0 ? 'are none' : `are: ${runs.map((run) => run.name).join(', ')}`}`,
    )
  return found
}

/** 20261120-llama-7f3a */
export function newRunName(modelFile: string, now: Date, random: number): string {
  const day = now.toISOString().slice(0, 10).replaceAll('-', '')
  const model =
    basename(modelFile, extname(modelFile))
      .replace(/[^A-Za-z0-9]+/g, '-')
      .replace(/^-+|-+$/g, '')
      .slice(0, 24) || 'model'
  return `${day}-${model}-${Math.floor(random * 0x10000)
    .toString(16)
    .padStart(4, '0')}`
}
