import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { profileModel } from '../../src/effects/profiler.ts'
import { EnvironmentError, ToolError, UsageError } from '../../src/errors.ts'
import type { ModelSpec } from '../../src/schema.ts'
import { tempFolder } from './temp.ts'

const MODEL: ModelSpec = { file: '/models/llama.py', class_name: 'Llama', input_shape: [1, 512], dtype: 'bf16', device: 'cpu', seed: 3 }
const PROFILE = {
  format: 1,
  model: MODEL,
  model_class: 'Llama',
  parameters: 1,
  device_name: 'cpu',
  torch: '2.13.0',
  total_us: 1,
  wall_us: 1,
  rows: [],
}

const PYTHON = 'python3'
const writes = (value: string): string => `open(sys.argv[sys.argv.index("--out") + 1], "w").write(${value})`

/** A profiler that does what these lines of Python say, and what is left in the folder for temporary files. */
function profiler(lines: string): { script: string; left: () => string[] } {
  const folder = tempFolder()
  const script = join(folder, 'profile_model.py')
  writeFileSync(script, `import json, sys, time\nsay = lambda text: print(text, file=sys.stderr, flush=True)\n${lines}\n`)
  const temporary = join(folder, 'tmp')
  mkdirSync(temporary)
  vi.stubEnv('TMPDIR', temporary)
  onTestFinished(() => void vi.unstubAllEnvs())
  return { script, left: () => readdirSync(temporary) }
}

describe('profiling a model', () => {
  it('passes on what was asked, says how it goes, and gives the parsed profile', async () => {
    const said: string[] = []
    const { script, left } = profiler(
      `say("profile: warming up")\nsay("[W torch] chatter")\nsay("profile: " + json.dumps(sys.argv[1:]))\n${writes(JSON.stringify(JSON.stringify(PROFILE)))}`,
    )
    expect(await profileModel({ python: PYTHON, model: MODEL, say: (line) => said.push(line), script, trace: '/t.json' })).toEqual(PROFILE)
    expect(said[0]).toBe('warming up')
    expect(JSON.parse(said[1] ?? '').slice(0, -2)).toEqual(
      '--model /models/llama.py --dtype bf16 --device cpu --seed 3 --class Llama --input-shape 1,512 --trace /t.json'.split(' '),
    )
    expect(said).toHaveLength(2)
    expect(left()).toEqual([])
  })

  it.each([
    [
      'the model is at fault',
      'say("profile: loading")\nsay("profile: llama.py:3: invalid syntax")\nsys.exit(2)',
      UsageError,
      /: llama\.py:3: invalid syntax$/,
    ],
    ['the machine is', 'say("profile: expected a CUDA device, found none")\nsys.exit(3)', EnvironmentError, /expected a CUDA device/],
    ['it breaks', 'raise RuntimeError("oh")', ToolError, /exit code 1[\s\S]*RuntimeError: oh/],
    ['it is killed', 'import os; os.kill(os.getpid(), 9)', ToolError, /SIGKILL/],
    ['its answer is no profile', writes('"{}"'), ToolError, /cannot read/],
  ])('fails in the right way when %s', async (_, lines, kind, text) => {
    const { script, left } = profiler(lines)
    const error = await profileModel({ python: PYTHON, model: MODEL, say: () => {}, script }).catch((caught: unknown) => caught)
    expect(error).toBeInstanceOf(kind)
    expect(String(error)).toMatch(text)
    expect(left()).toEqual([])
  })

  it('stops at once when asked to', async () => {
    const stop = new AbortController()
    const { script } = profiler('say("profile: a")\nsay("profile: b")\ntime.sleep(1000)')
    await expect(
      profileModel({ python: PYTHON, model: MODEL, say: () => stop.abort(new Error('enough')), script, signal: stop.signal }),
    ).rejects.toThrow('enough')
  })
})
