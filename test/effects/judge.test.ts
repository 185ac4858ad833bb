import { execFileSync, spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { DeviceFailed, Judge, type JudgeOptions } from '../../src/effects/judge.ts'
import { EnvironmentError, ToolError } from '../../src/errors.ts'
import { Target } from '../../src/schema.ts'
import { tempFolder } from './temp.ts'

const FAKE = fileURLToPath(new URL('fake_judge.py', import.meta.url))
const TARGET = Target.parse({
  name: 'rmsnorm',
  op: 'rmsnorm',
  op_file: null,
  dtype: 'fp32',
  backend: 'cpp',
  share: 0.2,
  shapes: [{ shape: [512, 768], options: { eps: 1e-5 }, weight: 1 }],
  sites: ['norm'],
})

function judge(change: Partial<JudgeOptions> = {}): { judge: Judge; log: string } {
  const log = join(tempFolder(), 'judge.log')
  const made = new Judge({ python: 'python3', script: FAKE, device: 'cpu', sandbox: 'auto', allowTf32: false, log, ...change })
  onTestFinished(() => made.close())
  return { judge: made, log }
}

const check = (to: Judge, path: string, signal?: AbortSignal) => to.check(TARGET, path, { quick: false, large: true }, signal)
const failure = (work: Promise<unknown>): Promise<Error> =>
  work.then(
    () => new Error('it did not fail'),
    (error: Error) => error,
  )
const answeringPid = async (to: Judge): Promise<number> => JSON.parse((await check(to, 'args')).detail)[2]
const runs = (pid: number): boolean => existsSync(`/proc/${pid}`) && !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
const sleepersOf = (pid: number): number[] => {
  const lines = execFileSync('ps', ['-eo', 'pid=,ppid=,comm='], { encoding: 'utf8' }).trim().split('\n')
  return lines
    .map((line) => line.trim().split(/\s+/))
    .filter(([, parent, name]) => Number(parent) === pid && name === 'sleep')
    .map(([own]) => Number(own))
}

describe('the judge behind its pipe', () => {
  it('is asked about a target in the words of the protocol, and answers with parsed results', async () => {
    const { judge: to } = judge({ allowTf32: true })
    expect((await to.hello()).protocol).toBe(1)
    const result = await check(to, 'args')
    expect(result.verdict).toBe('pass')
    const [argv, request] = JSON.parse(result.detail)
    expect(argv).toEqual(['--serve', '--device', 'cpu', '--sandbox', 'auto'])
    expect(request).toEqual({
      id: 2,
      type: 'check',
      op: 'rmsnorm',
      op_file: null,
      dtype: 'fp32',
      shapes: [{ shape: [512, 768], options: { eps: 1e-5 }, weight: 1, calls: 1 }],
      allow_tf32: true,
      path: 'args',
      quick: false,
      large: true,
      seed: null,
    })
    const sides = [{ name: 'a', kind: 'builtin', which: 'eager' } as const]
    expect((await to.time(TARGET, sides, 3)).rounds).toHaveLength(3)
  })

  it('answers questions asked at once one after the other, from the same warm process', async () => {
    const { judge: to } = judge()
    const answers = await Promise.all(Array.from({ length: 5 }, () => answeringPid(to)))
    expect(new Set(answers).size).toBe(1)
  })

  it('reads lines longer than a pipe holds', async () => {
    expect((await check(judge().judge, 'long')).detail).toBe('ü'.repeat(50_000))
  })

  it('gets no key, no token and nothing else that it does not need', async () => {
    for (const name of ['ANTHROPIC_API_KEY', 'OPENAI_API_KEY', 'HF_TOKEN', 'TORCH_API_KEY', 'SOMETHING_ELSE']) vi.stubEnv(name, 'secret')
    vi.stubEnv('OMP_NUM_THREADS', '2')
    onTestFinished(() => void vi.unstubAllEnvs())
    const names: string[] = JSON.parse((await check(judge().judge, 'env')).detail)
    expect(names).toContain('PATH')
    expect(names).toContain('OMP_NUM_THREADS')
    expect(names.filter((name) => /KEY|TOKEN|SOMETHING/.test(name))).toEqual([])
  })

  it('dies with every process it started when a question is aborted, and a fresh one answers the next', async () => {
    const { judge: to } = judge()
    const pid = await answeringPid(to)
    const stop = new AbortController()
    const hanging = failure(check(to, 'hang', stop.signal))
    await vi.waitUntil(() => sleepersOf(pid).length === 1, { timeout: 5000 })
    const [sleeper = 0] = sleepersOf(pid)
    const reason = new Error('stop now')
    stop.abort(reason)
    expect(await hanging).toBe(reason)
    expect(await answeringPid(to)).not.toBe(pid)
    await vi.waitUntil(() => !runs(pid) && !runs(sleeper), { timeout: 2000 })
  })

  it('does not ask a question whose caller has given up already', async () => {
    await expect(check(judge().judge, 'hang', AbortSignal.abort(new Error('no')))).rejects.toThrow('no')
  })

  it('is ended when it does not answer in time', async () => {
    const { judge: to } = judge({ deadlinesMs: { check: 300 } })
    const error = await failure(check(to, 'hang'))
    expect(error).toBeInstanceOf(DeviceFailed) // only a driver can hold it up that long
    expect(String(error)).toContain("did not answer 'check' within 0.3 s")
    expect((await to.hello()).protocol).toBe(1)
  })

  it.each([
    ['dies', 'die', ToolError, /ended \(exit code 1\); log: .*judge\.log\nRuntimeError: device lost/],
    ['finds no device', 'no-gpu', EnvironmentError, /^EnvironmentError: expected a CUDA device, found none$/],
    ['sends an endless line', 'flood', ToolError, /line of more than \d+ bytes/],
    ['sends a result of another form', 'garbage', ToolError, /cannot read; log: .*\n.*✖/],
    [
      'has no space',
      'no-space',
      EnvironmentError,
      /^EnvironmentError: the judge found the disk full \(OSError: .* '\/tmp\/x'\); free some space and resume$/,
    ],
    ['cannot work', 'decline', ToolError, /could not answer 'check': the reference ran out of memory/],
  ])('says what happened when it %s, and answers the next question', async (_, path, kind, text) => {
    const { judge: to } = judge()
    const error = await failure(check(to, path))
    expect(error).toBeInstanceOf(kind)
    expect(String(error)).toMatch(text)
    expect((await to.hello()).protocol).toBe(1)
  })

  it('is started again after it was killed between two questions', async () => {
    const { judge: to } = judge()
    const pid = await answeringPid(to)
    process.kill(pid, 'SIGKILL')
    expect(await answeringPid(to)).not.toBe(pid)
  })

  it('is asked once more when something killed it over a question, and not a third time', async () => {
    const { judge: to } = judge()
    const tries = join(tempFolder(), 'tries')
    expect((await check(to, `killed 1 ${tries}`)).verdict).toBe('pass')
    expect(readFileSync(tries, 'utf8')).toBe('x')
    expect(String(await failure(check(to, `killed 9 ${tries}`)))).toMatch(/ended \(SIGKILL\)/)
    expect(readFileSync(tries, 'utf8')).toBe('xxx')
    expect((await to.hello()).protocol).toBe(1)
  })

  it.each(['pass', 'hang', 'die'])(
    "has a temporary folder of its own while it lives, and none when it has ended over '%s'",
    async (path) => {
      const { judge: to } = judge()
      const place = tempFolder()
      vi.stubEnv('TMPDIR', place)
      onTestFinished(() => void vi.unstubAllEnvs())
      await to.hello()
      expect(readdirSync(place)).toEqual([expect.stringMatching(/^autokernel-judge-/)])
      await failure(check(to, path, AbortSignal.timeout(300)))
      await to.close()
      await vi.waitUntil(() => readdirSync(place).length === 0, { timeout: 2000 })
    },
  )

  it('ends, and is told to have ended, when somebody removed its log', async () => {
    const { judge: to, log } = judge()
    await to.hello()
    rmSync(log)
    await to.close()
    await to.hello()
    rmSync(log)
    expect(String(await failure(check(to, 'die')))).toMatch(/ended \(exit code 1\); log: /)
  })

  it('is not even started before the device is its own, and gives it back when it cannot be started', async () => {
    const place = tempFolder()
    const events: string[] = []
    const takeTurn = async () => {
      events.push(`taken with ${readdirSync(place).length} judges`)
      return { release: () => void events.push('given back') }
    }
    const { judge: to } = judge({ takeTurn })
    vi.stubEnv('TMPDIR', place)
    onTestFinished(() => void vi.unstubAllEnvs())
    await to.hello()
    await to.close()
    vi.stubEnv('TMPDIR', join(place, 'nowhere'))
    expect(await failure(to.hello())).toBeInstanceOf(EnvironmentError)
    expect(events).toEqual(['taken with 0 judges', 'given back', expect.stringMatching(/^taken/), 'given back'])
  })

  it('cannot be started without its Python: one line', async () => {
    expect(await failure(judge({ python: '/nonexistent/python' }).judge.hello())).toBeInstanceOf(EnvironmentError)
  })

  it('ends when it is closed, and when the daemon exits without closing it', async () => {
    const { judge: to } = judge()
    const pid = await answeringPid(to)
    await to.close()
    expect(runs(pid)).toBe(false)

    const script = `
      import { Served } from ${JSON.stringify(new URL('../../src/effects/served.ts', import.meta.url).href)}
      const served = new Served('sleep', ['1000'], ${JSON.stringify(join(tempFolder(), 'log'))})
      process.stdout.write(String(served.pid))
      setTimeout(() => process.exit(0), 100)`
    const daemon = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let orphan = ''
    daemon.stdout.on('data', (text) => (orphan += text))
    await new Promise((resolve) => daemon.once('close', resolve))
    expect(Number(orphan)).toBeGreaterThan(1)
    await vi.waitUntil(() => !runs(Number(orphan)), { timeout: 2000 })
  })
})

describe('the real judge', () => {
  it('says who it is and passes a starting kernel', async () => {
    const root = fileURLToPath(new URL('../..', import.meta.url))
    const { judge: to } = judge({ python: join(root, '.venv/bin/python'), script: join(root, 'bench/bench.py') })
    const hello = await to.hello()
    expect(hello.device.kind).toBe('cpu')
    expect(hello.ops).toContain('rmsnorm')
    const result = await to.check(TARGET, join(root, 'kernels/rmsnorm/starter_cpp.py'), { quick: true, large: false })
    expect(result).toMatchObject({ verdict: 'pass', op: 'rmsnorm', quick: true, judge_hash: hello.judge_hash })
  }, 60_000)
})
