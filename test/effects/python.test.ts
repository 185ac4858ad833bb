import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ensurePython, type PythonWanted } from '../../src/effects/python.ts'
import { isBuilt } from '../../src/effects/venv.ts'
import { EnvironmentError } from '../../src/errors.ts'
import { tempFolder, write } from './temp.ts'

/** A real environment, made in 60 ms, in which torch seems installed: its metadata is all that is looked at. */
function environment(torch: string | null): string {
  const folder = tempFolder()
  execFileSync('python3', ['-m', 'venv', '--without-pip', folder])
  const lib = join(folder, 'lib', readdirSync(join(folder, 'lib'))[0] ?? '', 'site-packages')
  if (torch !== null) write(lib, { [`torch-${torch}.dist-info/METADATA`]: `Metadata-Version: 2.1\nName: torch\nVersion: ${torch}\n` })
  return folder
}

/** A program that answers like a Python of another version. */
function oldPython(version: string): string {
  const path = join(tempFolder(), 'python3')
  writeFileSync(path, `#!/bin/sh\necho '{"version": [${version.replace('.', ', ')}], "torch": "2.7.0"}'\n`)
  chmodSync(path, 0o755)
  return path
}

/** A package whose requirements can be met without a network, by a wheel made here. */
const WHEEL = `
import sys, zipfile
for version in sys.argv[2:]:
    info = f"torch-{version}.dist-info"
    with zipfile.ZipFile(f"{sys.argv[1]}/torch-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("torch.py", f"__version__ = '{version}'\\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\\nName: torch\\nVersion: {version}\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
`
function packageFolder(requirement: string): string {
  const root = tempFolder()
  mkdirSync(join(root, 'wheels'))
  execFileSync('python3', ['-c', WHEEL, join(root, 'wheels'), '2.13.0', '2.5.1'])
  write(root, {
    'requirements.txt': `--no-index\n--find-links wheels\n${requirement}\n`,
    'requirements-dev.txt': '-r requirements.txt\n',
  })
  return root
}

type Wanted = Partial<PythonWanted> & { lines?: string[] }
const ensure = ({ lines = [], env = {}, ...wanted }: Wanted) =>
  ensurePython({
    explicit: null,
    root: '/nonexistent',
    dev: false,
    log: (line) => lines.push(line),
    env: { PATH: process.env.PATH, ...env },
    ...wanted,
  })
const failure = (wanted: Wanted): Promise<unknown> =>
  ensure(wanted).then(
    () => null,
    (error: unknown) => error,
  )

describe('the Python of the user', () => {
  it.each<[string, (python: string, folder: string) => Wanted]>([
    ['--python', (python) => ({ explicit: python })],
    ['AUTOKERNEL_PYTHON', (python) => ({ env: { AUTOKERNEL_PYTHON: python } })],
    ['VIRTUAL_ENV', (_, folder) => ({ env: { VIRTUAL_ENV: folder } })],
    ['CONDA_PREFIX', (_, folder) => ({ env: { CONDA_PREFIX: folder } })],
    ['python3 on PATH', (_, folder) => ({ env: { PATH: `${folder}/bin` } })],
  ])('is found through %s when torch is there, and nothing is said', async (source, wanted) => {
    const folder = environment('2.11.0+cu130')
    const lines: string[] = []
    const found = await ensure({ lines, ...wanted(join(folder, 'bin/python'), folder) })
    expect(found).toMatchObject({ source, torch: '2.11.0+cu130' })
    expect(lines).toEqual([])
  })

  it('is the one asked for, before any that is active', async () => {
    const [asked, active] = [environment('2.6.0a0+ecf3bae40a.nv25.01'), environment('2.12.0')]
    const found = await ensure({
      explicit: join(asked, 'bin/python'),
      env: { VIRTUAL_ENV: active, AUTOKERNEL_PYTHON: join(active, 'bin/python') },
    })
    expect(found.torch).toBe('2.6.0a0+ecf3bae40a.nv25.01')
  })

  it('is passed over, aloud, when its torch is too old, and silently when it has none', async () => {
    const lines: string[] = []
    const env = { VIRTUAL_ENV: environment('2.5.1'), CONDA_PREFIX: environment(null), PATH: `${environment('2.9.0')}/bin` }
    expect(await ensure({ lines, env })).toMatchObject({ source: 'python3 on PATH', torch: '2.9.0' })
    expect(lines).toEqual(['VIRTUAL_ENV: expected torch 2.6 or newer, found 2.5.1; looking further'])
  })

  it.each<[string, () => string, RegExp]>([
    ['without torch', () => join(environment(null), 'bin/python'), /expected torch 2\.6 or newer, found none; install it there/],
    ['with an old torch', () => join(environment('2.1.0'), 'bin/python'), /expected torch 2\.6 or newer, found 2\.1\.0/],
    ['of version 3.9', () => oldPython('3.9'), /expected Python 3\.10 or newer, found 3\.9/],
    ['that is not there', () => '/nowhere/python', /cannot be run; check the path/],
    ['that is no Python', () => '/bin/echo', /cannot be run/],
  ])('is an error in one line, not a fallback, when it was asked for: one %s', async (_, python, text) => {
    for (const wanted of [{ explicit: python() }, { env: { AUTOKERNEL_PYTHON: python() } }]) {
      const error = await failure(wanted)
      expect(error).toBeInstanceOf(EnvironmentError)
      expect(String(error)).toMatch(text)
      expect(String(error)).not.toContain('\n')
    }
  })
})

describe('the environment of ours', () => {
  it('is built from requirements.txt when no Python has torch, after a failure too, says what it does, and is ready at the second start', async () => {
    const root = packageFolder('torch==9.9.9')
    const error = await failure({ root })
    expect(error).toBeInstanceOf(EnvironmentError)
    expect(String(error)).toMatch(/pip could not install requirements\.txt: .*torch==9\.9\.9.*check the network/)
    expect(String(error)).not.toContain('\n')

    write(root, { 'requirements.txt': '--no-index\n--find-links wheels\ntorch==2.13.0\n' })
    const lines: string[] = []
    const first = await ensure({ root, lines })
    expect(first).toEqual({ python: join(root, '.venv/bin/python'), torch: '2.13.0', source: join(root, '.venv') })
    expect(lines.join('\n')).toMatch(
      /setting up Python in .*\.venv, once[\s\S]*Successfully installed torch-2\.13\.0[\s\S]*Python is set up/,
    )

    lines.length = 0
    expect(await ensure({ root, lines })).toEqual(first)
    expect(lines).toEqual([])

    // The development tools are another set-up, always in this environment; afterwards both purposes are served.
    await ensure({ root, dev: true, lines, env: { VIRTUAL_ENV: environment('2.12.0') } })
    expect(lines.at(-1)).toBe('Python is set up')
    lines.length = 0
    await ensure({ root, dev: true, lines })
    await ensure({ root, lines })
    expect(lines).toEqual([])

    write(root, { 'requirements.txt': 'torch==2.14.0\n' })
    expect(isBuilt(join(root, '.venv'), root, false)).toBe(false)
  }, 120_000)

  it('needs a Python of 3.10 or newer to be built', async () => {
    const path = oldPython('3.8')
    expect(String(await failure({ root: packageFolder('torch'), env: { PATH: path.replace('/python3', '') } }))).toMatch(
      /on PATH, found 3\.8; install it/,
    )
    expect(String(await failure({ root: packageFolder('torch'), env: { PATH: '/nonexistent' } }))).toMatch(/on PATH, found none/)
  })
})
