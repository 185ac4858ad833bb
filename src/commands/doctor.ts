/** autokernel doctor: what this machine can do, a line each, with its fix. */
import { join } from 'node:path'
import { execa } from 'execa'
import { KEY_VARIABLE } from '../agent-list.ts'
import { hostFacts } from '../effects/host.ts'
import { findRepository } from '../effects/repository.ts'
import { dropFolder, scratchFolder } from '../effects/temporary.ts'
import type { Io } from '../io.ts'
import { openRoom, type Room, startJudge } from '../machine-room.ts'
import type { Options } from '../options.ts'
import type { Hello } from '../schema.ts'

type Finding = { what: string; ok: boolean; found: string; fix: string | null }

export async function doctor(options: Options, io: Io): Promise<number> {
  const findings: Finding[] = []
  const note = (finding: Finding) => {
    findings.push(finding)
    if (!io.json)
      io.print(`${finding.ok ? 'ok  ' : 'MISS'}  ${finding.what.padEnd(10)} ${finding.found}${finding.fix ? `; ${finding.fix}` : ''}`)
  }
  const host = await hostFacts(io.cwd)
  note({
    what: 'host',
    ok: true,
    found: `${host.cpu}, ${host.cores} cores, ${host.memoryGb.toFixed(0)} GB, ${host.freeDiskGb?.toFixed(0) ?? '?'} GB of disk free`,
    fix: null,
  })
  note({ what: 'node', ok: true, found: process.version, fix: null })
  note(await version('git', ['--version'], 'install git'))
  note(await repository(io))
  note(await version('g++', ['--version'], 'install g++ (Debian: apt install g++); the CPU backend compiles with it'))
  note(await version('nvcc', ['--version'], 'only for CUDA C++ kernels where NVRTC is missing', true))
  note(await version('flock', ['--version'], 'install util-linux'))

  const room = await openRoom(options, io).catch((error: unknown) => error as Error)
  if (room instanceof Error) note({ what: 'python', ok: false, found: room.message, fix: null })
  else {
    note({ what: 'python', ok: true, found: room.python, fix: null })
    for (const finding of await asked(room, io.say)) note(finding)
  }
  const key = [
    ...(options['key-command'] === undefined ? [] : ['--key-command']),
    ...Object.values(KEY_VARIABLE).filter((name) => io.env[name]),
  ]
  note({
    what: 'key',
    ok: true,
    found: key.length > 0 ? `${key.join(', ')} set` : 'none set: the search agent has the ideas',
    fix: key.length > 0 ? null : 'set ANTHROPIC_API_KEY or --key-command for a language model’s',
  })
  if (io.json) io.document(findings)
  return findings.every((f) => f.ok) ? 0 : 3
}

/** What the judge itself says of the device and of what confines a candidate. */
async function asked(room: Room, say: (line: string) => void): Promise<Finding[]> {
  const scratch = scratchFolder('doctor')
  const judge = startJudge(room, join(scratch, 'judge.log'), say)
  try {
    const hello: Hello = await judge.hello()
    const { device, sandbox } = hello
    const rates = Object.entries(device.measured.tflops).map(([dtype, rate]) => `${dtype} ${rate.toFixed(rate < 10 ? 2 : 0)}`)
    const weak = /none/i.test(sandbox)
    return [
      {
        what: 'torch',
        ok: true,
        found: `${device.torch}${device.triton ? `, triton ${device.triton}` : ''}${device.runtime ? `, ${device.runtime}` : ''}`,
        fix: null,
      },
      {
        what: 'device',
        ok: true,
        found: `${device.name} (${device.kind}), ${device.memory_gb.toFixed(0)} GB; measured ${device.measured.gbps.toFixed(0)} GB/s, TFLOP/s ${rates.join(', ')}`,
        fix: room.device === 'cpu' ? 'with a GPU: install its driver and a torch built for it' : null,
      },
      { what: 'sandbox', ok: !weak, found: sandbox, fix: weak ? 'allow user namespaces or Landlock for this user (kernel >= 5.13)' : null },
    ]
  } catch (error) {
    const [first = '', ...words] = (error as Error).message.replace(/;? ?\blog: .*/, '').split('\n')
    const last = words.filter((line) => line.trim() !== '').at(-1)
    return [{ what: 'judge', ok: false, found: first, fix: last === undefined ? null : `its last words: ${last.trim()}` }]
  } finally {
    await judge.close()
    await dropFolder(scratch)
  }
}

async function version(program: string, args: string[], fix: string, optional = false): Promise<Finding> {
  const { exitCode, stdout } = await execa(program, args, { reject: false, timeout: 10_000 })
  if (exitCode === 0)
    return {
      what: program,
      ok: true,
      found:
        stdout
          .split('\n')
          .filter((line) => line !== '')
          .at(program === 'nvcc' ? -1 : 0) ?? '',
      fix: null,
    }
  return { what: program, ok: optional, found: 'not found', fix }
}

async function repository(io: Io): Promise<Finding> {
  try {
    const { root } = await findRepository(io.cwd)
    return { what: 'repository', ok: true, found: root, fix: null }
  } catch (error) {
    return { what: 'repository', ok: true, found: (error as Error).message, fix: 'optimize needs one: git init, add, commit' }
  }
}
