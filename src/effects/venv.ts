/** Builds the Python environment of ours, saying what it does; a stamp tells that it was finished, and from which requirements. */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { execa } from 'execa'
import { EnvironmentError } from '../errors.ts'
import { cannotWrite, writeAtomically } from './files.ts'
import { waitForLock } from './lock.ts'

export type Building = {
  folder: string
  root: string // where the requirements lie
  dev: boolean
  base: string // the Python to build it with
  log: (line: string) => void
  env: NodeJS.ProcessEnv
}

/** An environment with the development tools serves both purposes. */
export function isBuilt(folder: string, root: string, dev: boolean): boolean {
  const stamp = stampOf(folder)
  if (!existsSync(stamp)) return false
  const found = readFileSync(stamp, 'utf8')
  return found === wanted(root, true) || (!dev && found === wanted(root, false))
}

export async function buildVenv(building: Building): Promise<void> {
  const { folder, root, dev, log } = building
  try {
    mkdirSync(folder, { recursive: true })
  } catch (error) {
    throw cannotWrite(folder, error)
  }
  const lock = await waitForLock(join(folder, '.autokernel-lock'), (owner) => log(`waiting for process ${owner}, which sets up ${folder}`))
  try {
    if (isBuilt(folder, root, dev)) return // by the one we waited for
    log(`setting up Python in ${folder}, once; torch is large, this takes minutes`)
    const python = join(folder, 'bin', 'python')
    if (!(await hasPip(python, building))) await makeVenv(building)
    const file = requirements(dev)
    const pip = await run(building, python, [
      '-m',
      'pip',
      'install',
      '--disable-pip-version-check',
      '--no-input',
      '--progress-bar',
      'off',
      '-r',
      file,
    ])
    if (pip.failed) {
      throw new EnvironmentError(
        `pip could not install ${file}: ${last(pip.lines)}; check the network and start again, or name a Python that has torch with --python`,
      )
    }
    await writeAtomically(stampOf(folder), wanted(root, dev))
    log('Python is set up')
  } finally {
    lock.release()
  }
}

async function makeVenv(building: Building): Promise<void> {
  const { base, folder } = building
  const { failed, lines } = await run(building, base, ['-m', 'venv', folder])
  if (!failed) return
  const hint = lines.some((line) => line.includes('ensurepip'))
    ? 'install the venv package (Debian: apt install python3-venv)'
    : 'see the lines above'
  throw new EnvironmentError(`${base} -m venv ${folder} failed: ${last(lines)}; ${hint}, or name a Python that has torch with --python`)
}

/** Left by a set-up that was interrupted or was for other requirements: pip goes on from there. */
async function hasPip(python: string, { env }: Building): Promise<boolean> {
  const { failed } = await execa(python, ['-m', 'pip', '--version'], { env, extendEnv: false, reject: false, stdin: 'ignore' })
  return !failed
}

async function run({ root, log, env }: Building, command: string, args: string[]): Promise<{ failed: boolean; lines: string[] }> {
  const lines: string[] = []
  const child = execa(command, args, {
    cwd: root,
    env: { ...env, PIP_USER: '0', PYTHONUNBUFFERED: '1' }, // a user's PIP_USER=1 makes pip refuse an environment
    extendEnv: false,
    reject: false,
    all: true,
    buffer: false,
    stdin: 'ignore',
  })
  for await (const line of child.iterable({ from: 'all' })) {
    lines.push(line)
    if (!/already satisfied|^\s*$/.test(line)) log(line.trimEnd())
  }
  return { failed: (await child).failed, lines }
}

/** The line that says why, in what a failing pip or venv wrote. */
function last(lines: string[]): string {
  const errors = lines.filter((line) => /^ERROR|Error|ensurepip/.test(line))
  return (errors.at(-1) ?? lines.at(-1) ?? 'it said nothing').replace(/^ERROR: /, '').trim()
}

function requirements(dev: boolean): string {
  return dev ? 'requirements-dev.txt' : 'requirements.txt'
}

function stampOf(folder: string): string {
  return join(folder, '.autokernel-built')
}

function wanted(root: string, dev: boolean): string {
  const hash = createHash('sha256')
  for (const file of dev ? ['requirements.txt', 'requirements-dev.txt'] : ['requirements.txt']) hash.update(readFileSync(join(root, file)))
  return `${requirements(dev)} ${hash.digest('hex')}\n`
}
