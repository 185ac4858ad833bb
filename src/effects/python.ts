/** Finds the Python that runs kernels: the user's own when torch is there, else an environment of ours, built once. */
import { accessSync, constants, existsSync } from 'node:fs'
import { join } from 'node:path'
import envPaths from 'env-paths'
import { execa } from 'execa'
import { z } from 'zod'
import { EnvironmentError } from '../errors.ts'
import { buildVenv, isBuilt } from './venv.ts'

export type Python = { python: string; torch: string; source: string }

export type PythonWanted = {
  explicit: string | null | undefined // --python
  root: string // of the package: requirements.txt lies here
  dev: boolean // with the tools for working on autokernel itself; always in the environment of ours
  log: (line: string) => void
  env?: NodeJS.ProcessEnv
}

const Facts = z.object({ version: z.tuple([z.number(), z.number()]), torch: z.string().nullable() })
type Facts = z.infer<typeof Facts>

// No import of torch: 1.7 s. Metadata alone takes 50 ms.
const PROBE = `
import json, sys
try:
    from importlib.metadata import version
    torch = version("torch")
except Exception:
    torch = None
print(json.dumps({"version": list(sys.version_info[:2]), "torch": torch}))`

export async function ensurePython({ explicit, root, dev, log, env = process.env }: PythonWanted): Promise<Python> {
  if (!dev) {
    for (const [source, python] of [
      ['--python', explicit],
      ['AUTOKERNEL_PYTHON', env.AUTOKERNEL_PYTHON],
    ] as const) {
      if (!python) continue
      const fix = `install it there (${python} -m pip install torch), or leave ${source} out`
      return { python, source, torch: await required(source, python, env, fix) } // asked for: no other will do
    }
    for (const [source, python] of active(env)) {
      const facts = await probe(python, env)
      if (facts?.torch && lacking(facts) === null) return { python, source, torch: facts.torch }
      if (facts?.torch) log(`${source}: ${lacking(facts)}; looking further`)
    }
  }
  const folder = venvFolder(root)
  const python = join(folder, 'bin', 'python')
  const built = isBuilt(folder, root, dev) ? await probe(python, env) : null
  if (built?.torch && lacking(built) === null) return { python, source: folder, torch: built.torch }

  await buildVenv({ folder, root, dev, log, base: await basePython(env), env })
  return { python, source: folder, torch: await required(folder, python, env, 'remove that folder and start again') }
}

/** The environments a user may have switched on, nearest first. */
function active(env: NodeJS.ProcessEnv): [string, string][] {
  const prefixes = (['VIRTUAL_ENV', 'CONDA_PREFIX'] as const).flatMap((name): [string, string][] => {
    const prefix = env[name]
    return prefix ? [[name, join(prefix, 'bin', 'python')]] : []
  })
  return [...prefixes, ['python3 on PATH', 'python3']]
}

async function required(source: string, python: string, env: NodeJS.ProcessEnv, fix: string): Promise<string> {
  const facts = await probe(python, env)
  if (!facts) throw new EnvironmentError(`${source}: expected a Python, but '${python}' cannot be run; check the path`)
  const lack = lacking(facts)
  if (lack !== null || facts.torch === null) throw new EnvironmentError(`${source} (${python}): ${lack}; ${fix}`)
  return facts.torch
}

/** Why this Python will not do, or null. */
function lacking({ version, torch }: Facts): string | null {
  const [major, minor] = version
  if (major !== 3 || minor < 10) return `expected Python 3.10 or newer, found ${major}.${minor}`
  if (torch === null) return 'expected torch 2.6 or newer, found none'
  const [torchMajor = 0, torchMinor = 0] = torch.split('.').map((part) => Number.parseInt(part, 10))
  return torchMajor > 2 || (torchMajor === 2 && torchMinor >= 6) ? null : `expected torch 2.6 or newer, found ${torch}`
}

async function probe(python: string, env: NodeJS.ProcessEnv): Promise<Facts | null> {
  const { stdout, failed } = await execa(python, ['-c', PROBE], { env, extendEnv: false, reject: false, timeout: 20_000, stdin: 'ignore' })
  if (failed) return null
  try {
    return Facts.parse(JSON.parse(stdout.trim().split('\n').at(-1) ?? ''))
  } catch {
    return null // something else than a Python
  }
}

/** A Python that can build an environment; torch need not be there. */
async function basePython(env: NodeJS.ProcessEnv): Promise<string> {
  const found: string[] = []
  for (const python of ['python3', 'python3.13', 'python3.12', 'python3.11', 'python3.10']) {
    const facts = await probe(python, env)
    if (!facts) continue
    const lack = lacking({ ...facts, torch: '3.0' })
    if (lack === null) return python
    found.push(facts.version.join('.'))
  }
  throw new EnvironmentError(
    `expected Python 3.10 or newer on PATH, found ${found.join(', ') || 'none'}; install it, or name one with --python`,
  )
}

function venvFolder(root: string): string {
  const beside = join(root, '.venv')
  if (existsSync(beside) || canWrite(root)) return beside
  return join(envPaths('autokernel', { suffix: '' }).cache, 'venv')
}

function canWrite(folder: string): boolean {
  try {
    accessSync(folder, constants.W_OK)
    return true
  } catch {
    return false
  }
}
