/** Ideas from any program that edits files: it gets kernel.py in a scratch folder, a time limit and a process group that ends with it. */
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { execa } from 'execa'
import { MAX_SOURCE_BYTES, oneLine } from '../core/patch.ts'
import { buildContext } from '../core/prompt.ts'
import type { Agent, Request } from '../ports.ts'
import { findProgram } from '../program.ts'
import type { Answer } from '../types.ts'
import { candidate, FREE } from './candidate.ts'
import { readBytes, readShort, snapshot } from './folder.ts'

export type CommandOptions = {
  command: string
  scratch: string // a folder of ours; each proposal gets a new one inside, which is removed afterwards
  timeoutMs?: number
  environment?: NodeJS.ProcessEnv | undefined // what the program needs, its own key among it; ours otherwise
}

/** What it costs is between it and whoever pays for it; that it answered is counted. */
const ONE_TURN = { ...FREE, turns: 1 }
const MAX_OUTPUT = 64 * 1024
/** What a coding agent leaves beside its work, and what Python does. */
const MAY_APPEAR = /^(hypothesis\.txt$|NOTES\.md$|\.|__pycache__\/|.*\.pyc$)/
const READ_ONLY = { 'program.md': (request: Request) => request.playbook, 'CONTEXT.md': buildContext }

export function commandAgent(options: CommandOptions): Agent {
  const [program, ...args] = findProgram(options.command, '--command', options.environment?.PATH)
  const timeoutMs = options.timeoutMs ?? 20 * 60_000
  let calls = 0
  return { name: 'command', propose }

  async function propose(request: Request, signal: AbortSignal): Promise<Answer> {
    signal.throwIfAborted()
    const folder = join(options.scratch, `${process.pid}-${++calls}-${request.target.name}`)
    await rm(folder, { recursive: true, force: true })
    await mkdir(folder, { recursive: true })
    try {
      for (const [name, text] of Object.entries(READ_ONLY)) await writeFile(join(folder, name), text(request))
      await writeFile(join(folder, 'kernel.py'), request.repair?.proposal.source ?? request.incumbent.source)
      const before = await snapshot(folder)
      const run = await runIn(folder, signal)
      const foreign = differing(before, await snapshot(folder))
      const hypothesis = await ideaIn(folder, run.output)
      if (run.failure) return invalid(run.failure, hypothesis)
      if (foreign.length > 0) return invalid(`it edited other files than kernel.py: ${oneLine(foreign.join(', '), 300)}`, hypothesis)
      return judge(request, await readBytes(join(folder, 'kernel.py'), MAX_SOURCE_BYTES + 1).catch(() => null), hypothesis)
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  }

  /** Its own process group, killed whole: a grandchild that hangs would keep the pipes open and us waiting for it. */
  async function runIn(cwd: string, signal: AbortSignal): Promise<{ output: string; failure: string | null }> {
    const child = execa(program, args, {
      cwd,
      detached: true,
      buffer: false,
      stdin: 'ignore',
      all: true,
      reject: false,
      ...(options.environment ? { env: options.environment, extendEnv: false } : {}),
    })
    let output = ''
    child.all.on('data', (chunk: Buffer) => {
      output = (output + chunk.toString()).slice(-MAX_OUTPUT)
    })
    let late = false
    const killGroup = (): void => {
      if (child.pid === undefined) return
      try {
        process.kill(-child.pid, 'SIGKILL')
      } catch {
        // nobody left in the group
      }
    }
    const timer = setTimeout(() => {
      late = true
      killGroup()
    }, timeoutMs)
    signal.addEventListener('abort', killGroup)
    if (signal.aborted) killGroup() // while the folder was prepared
    process.on('exit', killGroup) // a detached group outlives us otherwise
    try {
      const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
      await Promise.race([ended.then(killGroup), child]) // what it left running must not edit on
      const result = await child
      signal.throwIfAborted()
      if (late) return { output, failure: `it ran longer than ${timeoutMs / 1000} s and was ended` }
      const how = result.exitCode === undefined ? `was ended by ${result.signal ?? 'a signal'}` : `ended with exit code ${result.exitCode}`
      return { output, failure: result.exitCode === 0 ? null : `it ${how}: ${lastLine(output) || 'no output'}` }
    } finally {
      clearTimeout(timer)
      signal.removeEventListener('abort', killGroup)
      process.removeListener('exit', killGroup)
    }
  }
}

function judge(request: Request, bytes: Buffer | null, hypothesis: string): Answer {
  if (bytes === null) return invalid('it left no file kernel.py', hypothesis)
  if (bytes.length > MAX_SOURCE_BYTES) return invalid('kernel.py would have more than 256 KiB', hypothesis)
  const source = bytes.toString()
  if (!Buffer.from(source).equals(bytes)) return invalid('kernel.py would not be valid UTF-8', hypothesis)
  return candidate(request, { source, hypothesis, predictedGain: null, agent: 'command', repairable: true, ...ONE_TURN })
}

function invalid(why: string, hypothesis: string): Answer {
  return { kind: 'invalid', why: oneLine(why, 500), hypothesis, agent: 'command', ...ONE_TURN }
}

function differing(before: Map<string, string>, after: Map<string, string>): string[] {
  const names = new Set([...before.keys(), ...after.keys()])
  return [...names].filter((name) => name !== 'kernel.py' && !MAY_APPEAR.test(name) && before.get(name) !== after.get(name)).sort()
}

async function ideaIn(folder: string, output: string): Promise<string> {
  for (const name of ['hypothesis.txt', 'NOTES.md']) {
    const text = await readShort(join(folder, name))
    const line = text
      .split('\n')
      .map((raw) => raw.replace(/^[#>*\s-]+/, ''))
      .find((candidate) => /\w{3}/.test(candidate))
    if (line) return oneLine(line.replace(/^(idea|hypothesis)\W+/i, ''), 300)
  }
  return oneLine(lastLine(output).replace(/^(idea|hypothesis)\W+/i, ''), 300) || 'no hypothesis given'
}

const lastLine = (output: string): string => output.trimEnd().split('\n').at(-1)?.trim() ?? ''
