/** What all kill rounds share: the interposer, the recorded judge, a recorded profile and ideas, and a user's repository to copy. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { copyFileSync, cpSync, mkdirSync, mkdtempSync, realpathSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { FORMAT, JournalFile } from '../../src/effects/journal.ts'
import { packageRoot } from '../../src/package-root.ts'
import { CommitSha } from '../../src/schema.ts'
import { proposal } from '../support/make.ts'

const KILL = join(packageRoot, 'test', 'kill')
const PYTHON = join(packageRoot, '.venv', 'bin', 'python')
export const MODEL = join(packageRoot, 'test', 'fixtures', 'models', 'tiny_rmsnorm.py')

export type Stage = {
  interposer: string
  python: string // for the daemon: its judge is the recorded one, its profile is recorded too
  newFolder: () => string // a user's repository of its own
  newPlace: () => string // nothing is there yet
  times: string // a line for each answer of the judge
  close: () => Promise<void>
}

/** Ideas that are kept, slower, wrong and broken; what they take follows from their text (recorded_judge.py). */
const right = (idea: number): string =>
  `h = x.float() * torch.rsqrt(x.float().pow(2).mean(dim=-1, keepdim=True) + eps); idea = ${idea}; return (h * weight.float()).to(x.dtype)`
const BODIES = [right(2), 'return x * (weight + 0.01)', right(6), "raise RuntimeError('this kernel gives up')", right(24)]
export const IDEAS = BODIES.length

export async function setStage(): Promise<Stage> {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'autokernel-kill-')))
  const interposer = join(folder, 'interposer.so')
  execFileSync('gcc', ['-O1', '-shared', '-fPIC', '-o', interposer, join(KILL, 'interposer.c'), '-ldl'])
  const socket = join(folder, 'judge')
  const judge = spawn(PYTHON, [join(KILL, 'recorded_judge.py'), socket], { stdio: ['pipe', 'pipe', 'ignore'] })
  await listening(judge)
  const python = join(folder, 'python')
  writeFileSync(python, standIn(socket, join(folder, 'recorded')), { mode: 0o755 })
  const places = realpathSync(mkdtempSync(join(inMemory() ?? tmpdir(), 'autokernel-kill-')))
  const template = join(places, 'template')
  await makeTemplate(template)
  let count = 0
  const newPlace = () => join(places, `place-${++count}`)
  return {
    interposer,
    python,
    newFolder: () => {
      const copy = newPlace()
      cpSync(template, copy, { recursive: true })
      return copy
    },
    newPlace,
    times: `${socket}.times`,
    close: async () => {
      const closed = new Promise((resolve) => judge.once('close', resolve))
      judge.stdin?.end()
      await closed
      for (const gone of [folder, places]) rmSync(gone, { recursive: true, force: true })
    },
  }
}

/** Hundreds of repositories are written and synced. Programs stay out of it: nothing may be executed there in many containers. */
function inMemory(): string | null {
  try {
    const { bavail, bsize } = statfsSync('/dev/shm')
    return bavail * bsize > 2 ** 30 ? '/dev/shm' : null
  } catch {
    return null
  }
}

function listening(judge: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    judge.stdout?.once('data', () => resolve())
    judge.once('close', (code) => reject(new Error(`recorded_judge.py ended with ${code}`)))
  })
}

/** The program that --python names. What it says of itself and the first profile are asked for in earnest, and are everybody's from then on. */
const standIn = (socket: string, recorded: string): string => `#!/bin/sh
case "$*" in
*/bench.py*) exec ${PYTHON} -IS ${join(KILL, 'judge_client.py')} ${socket} ;;
*importlib.metadata*)
  if ! [ -f ${recorded}.facts ]; then ${PYTHON} "$@" > ${recorded}.$$ && mv ${recorded}.$$ ${recorded}.facts; fi
  exec cat ${recorded}.facts ;;
*/profile_model.py*)
  for out; do :; done
  if [ -f ${recorded}.profile ]; then exec cp ${recorded}.profile "$out"; fi
  ${PYTHON} "$@" && cp "$out" ${recorded}.$$ && mv ${recorded}.$$ ${recorded}.profile ;;
*) exec ${PYTHON} "$@" ;;
esac
`

/** A user with a branch, an index and a hook of their own, and the ideas as the journal of a run that was. */
async function makeTemplate(folder: string): Promise<void> {
  mkdirSync(folder)
  const git = (...args: string[]) => execFileSync('git', ['-C', folder, '-c', 'user.name=A', '-c', 'user.email=a@b', ...args])
  git('init', '-q', '-b', 'main')
  copyFileSync(MODEL, join(folder, 'tiny_rmsnorm.py'))
  git('add', '.')
  git('commit', '-qm', 'a model')
  git('branch', 'feature')
  writeFileSync(join(folder, 'notes.txt'), 'staged\n')
  git('add', 'notes.txt')
  writeFileSync(join(folder, 'notes.txt'), 'and edited since\n')
  writeFileSync(join(folder, '.git', 'hooks', 'post-commit'), '#!/bin/sh\nexit 1\n', { mode: 0o755 })
  const runs = join(folder, '.autokernel', 'runs', 'tape')
  mkdirSync(runs, { recursive: true })
  const journal = await JournalFile.create(join(runs, 'events.jsonl'), { format: FORMAT, run: 'tape', start: {} })
  const incumbent = CommitSha.parse('0'.repeat(40))
  for (const [seq, body] of BODIES.entries()) {
    const source = `import torch\n\nKERNEL_TYPE = "rmsnorm"\nBACKEND = "cpp"\n\n\ndef kernel_fn(x, weight, eps=1e-6):\n    ${body}\n`
    const idea = { ...proposal('rmsnorm', source, incumbent), hypothesis: `idea ${seq + 1}` }
    const answer = { kind: 'proposal' as const, proposal: idea }
    await journal.append({ type: 'answered', id: seq + 1, target: 'rmsnorm', incumbent, answer, seq, at: 0, wall: '2026-01-01T00:00:00Z' })
  }
  await journal.close()
}
