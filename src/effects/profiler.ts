/** Profiles a model in a Python process of its own, and parses what it found. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { EnvironmentError, ToolError, UsageError } from '../errors.ts'
import { packageRoot } from '../package-root.ts'
import { type ModelSpec, Profile } from '../schema.ts'
import { childEnv } from './child-env.ts'
import { dropFolder, scratchFolder } from './temporary.ts'
import { runTool } from './tool.ts'

const LIMIT_MS = 30 * 60_000 // a 7B model from cold disk and fifteen forward passes on a slow CPU
const PREFIX = 'profile: '

export type ProfileRequest = {
  python: string
  model: ModelSpec
  say: (line: string) => void
  trace?: string | undefined // files to write besides, when asked for
  memorySnapshot?: string | undefined
  compileLog?: string | undefined
  script?: string
  signal?: AbortSignal | undefined
}

export async function profileModel(request: ProfileRequest): Promise<Profile> {
  const { python, model, say, script = join(packageRoot, 'profile', 'profile_model.py'), signal } = request
  const folder = scratchFolder('profile')
  const out = join(folder, 'profile.json')
  try {
    let pending: string | null = null // one line behind: the last line of a failure becomes the error
    const onErr = (line: string): void => {
      if (!line.startsWith(PREFIX)) return // torch's own chatter
      if (pending !== null) say(pending)
      pending = line.slice(PREFIX.length)
    }
    const run = await runTool(python, [script, ...argumentsFor(request), '--out', out], {
      timeoutMs: LIMIT_MS,
      env: childEnv(),
      signal,
      onErr,
    })
    if (run.kind === 'missing') throw new EnvironmentError(`${python} cannot be started; check --python`)
    if (run.kind === 'timeout') throw new ToolError(`profiling ${model.file} took more than ${LIMIT_MS / 60_000} minutes and was ended`)
    if (run.code === 2 && pending !== null) throw new UsageError(pending)
    if (run.code === 3 && pending !== null) throw new EnvironmentError(pending)
    if (run.code !== 0) {
      throw new ToolError(
        [`${script} ended (${run.signal ?? `exit code ${run.code}`}) for ${model.file}`, ...run.err.slice(-12)].join('\n'),
      )
    }
    if (pending !== null) say(pending)
    const profile = Profile.safeParse(JSON.parse(await readFile(out, 'utf8')))
    if (!profile.success) throw new ToolError(`${script} wrote a profile we cannot read\n${z.prettifyError(profile.error)}`)
    return profile.data
  } finally {
    await dropFolder(folder)
  }
}

function argumentsFor({ model, trace, memorySnapshot, compileLog }: ProfileRequest): string[] {
  const optional: [string, string | null | undefined][] = [
    ['--class', model.class_name],
    ['--input-shape', model.input_shape?.join(',')],
    ['--trace', trace],
    ['--memory-snapshot', memorySnapshot],
    ['--compile-log', compileLog],
  ]
  const given = optional.flatMap(([flag, value]) => (value ? [flag, value] : []))
  return ['--model', model.file, '--dtype', model.dtype, '--device', model.device, '--seed', String(model.seed), ...given]
}
