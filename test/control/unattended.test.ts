import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { packageRoot } from '../../src/package-root.ts'
import { Night } from '../support/table-night.ts'

const UNIT = join(packageRoot, 'docs', 'autokernel@.service')
const SBATCH = join(packageRoot, 'docs', 'autokernel.sbatch')
const hasSystemd = spawnSync('systemd-analyze', ['--version']).status === 0

function folder(): string {
  const made = mkdtempSync(join(tmpdir(), 'autokernel-unattended-'))
  onTestFinished(() => rmSync(made, { recursive: true }))
  return made
}

function program(path: string, text: string): void {
  writeFileSync(path, text)
  chmodSync(path, 0o755)
}

function nightNamed(name: string): Night {
  const night = new Night(name, 0.1)
  onTestFinished(() => night.remove())
  return night
}

describe('the systemd unit', () => {
  it.skipIf(!hasSystemd)('is one that systemd understands, to the last line', () => {
    const unit = join(folder(), 'autokernel@llama.service')
    const text = readFileSync(UNIT, 'utf8').replace('/usr/local/bin/autokernel', join(packageRoot, 'autokernel'))
    const verify = (lines: string) => {
      writeFileSync(unit, lines)
      return spawnSync('systemd-analyze', ['verify', unit], { encoding: 'utf8' })
    }
    expect(verify(text)).toMatchObject({ status: 0, stderr: '' })
    expect(verify(text.replace('KillMode=mixed', 'KillModus=mixed')).stderr).toContain('KillModus')
  })

  it('starts a run with flags that there are', async () => {
    const night = nightNamed('tiny')
    const line = /^ExecStart=\S+ (.*)$/m.exec(readFileSync(UNIT, 'utf8'))?.[1] ?? ''
    const args = line.replaceAll('%i', 'tiny').replace('model.py', 'tiny_rmsnorm.py').split(' ')
    expect(await night.start([...args, '--dry-run', '--python', night.python]).ended).toMatchObject({ code: 0 })
  })
})

describe('the sbatch script', () => {
  /** The script as Slurm would run it, with a srun that only starts what it is given. */
  function job(night: Night, tools: string) {
    const settings = {
      AUTOKERNEL_PYTHON: night.python,
      AUTOKERNEL_DEVICE: 'cpu',
      AUTOKERNEL_AGENT: 'search',
      AUTOKERNEL_MAX_EXPERIMENTS: '4',
    }
    const env = { ...settings, PATH: `${tools}:${process.env.PATH}`, SLURM_JOB_ID: '4711' }
    return night.run('bash', [SBATCH, 'tiny_rmsnorm.py', night.name], env)
  }

  it('saves the run when Slurm warns it, queues again, and goes on where it was', async () => {
    const tools = folder()
    program(join(tools, 'srun'), `#!/bin/sh\necho $$ > ${tools}/step\nexec "$@"\n`)
    program(join(tools, 'scontrol'), `#!/bin/sh\necho "$@" >> ${tools}/told\n`)
    symlinkSync(join(packageRoot, 'autokernel'), join(tools, 'autokernel'))
    const night = nightNamed('night')
    const first = job(night, tools)
    await night.until(() => night.settled() >= 1)
    await night.stuck()
    process.kill(Number(readFileSync(join(tools, 'step'), 'utf8')), 'SIGUSR1')
    expect(await first.ended).toMatchObject({ code: 0, stdout: 'autokernel: run night goes on in the next job\n' })
    expect(readFileSync(join(tools, 'told'), 'utf8')).toBe('requeue 4711\n')

    night.pace(0)
    const second = await job(night, tools).ended
    expect(second, second.stderr).toMatchObject({ code: 0, stderr: expect.stringContaining('resuming night: ') })
    expect(existsSync(join(night.root, 'REPORT.md'))).toBe(true)
    expect(night.settled()).toBe(4)
    expect(readFileSync(join(tools, 'told'), 'utf8')).toBe('requeue 4711\n')
  }, 60_000)

  it('ends with the exit code of a run that cannot work', async () => {
    const tools = folder()
    program(join(tools, 'srun'), '#!/bin/sh\nexit 4\n')
    expect(await job(nightNamed('night'), tools).ended).toMatchObject({ code: 4 })
  })
})
