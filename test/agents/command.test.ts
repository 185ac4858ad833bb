/** Any program as the source of ideas: only what it did to kernel.py is taken, and it is gone when its time is up. */
import { spawnSync } from 'node:child_process'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { describe, expect, it } from 'vitest'
import { commandAgent } from '../../src/agents/command.ts'
import { normalizedHash } from '../../src/core/source-hash.ts'
import { EnvironmentError } from '../../src/errors.ts'
import type { Request } from '../../src/ports.ts'
import { findProgram } from '../../src/program.ts'
import type { Answer } from '../../src/types.ts'
import { splitWords } from '../../src/words.ts'
import { KERNEL, never, request } from '../support/request.ts'
import { scratchFolder } from '../support/scratch.ts'

const FASTER = KERNEL.replace('NUM_WARPS = 4 ', 'NUM_WARPS = 16 ')
const EDIT = "sed -i 's/NUM_WARPS = 4 /NUM_WARPS = 16 /' kernel.py"

/** A killed process whose parent is gone may stay in the table as a zombie: that is not running. */
function isRunning(pid: number): boolean {
  return /^[^Z\s]/.test(spawnSync('ps', ['-o', 'stat=', '-p', String(pid)], { encoding: 'utf8' }).stdout.trim())
}

async function run(script: string, changes: Partial<Request> = {}, timeoutMs = 5000): Promise<{ answer: Answer; scratch: string }> {
  const scratch = await scratchFolder()
  const file = join(scratch, 'agent.sh')
  await writeFile(file, script)
  const agent = commandAgent({ command: `sh "${file}"`, scratch: join(scratch, 'work'), timeoutMs })
  return { answer: await agent.propose(request(changes), never), scratch }
}

it('takes what a program did to kernel.py, with its last line as the idea', async () => {
  const { answer, scratch } = await run(`${EDIT}\necho thinking\necho 'IDEA: more warps hide the latency'\n`)
  expect(answer).toEqual({
    kind: 'proposal',
    proposal: {
      target: 'rmsnorm',
      basedOn: 'abc1234',
      source: FASTER,
      hypothesis: 'more warps hide the latency',
      predictedGain: null,
      agent: 'command',
      disposable: false,
      thread: { ask: 1, repairs: 0 },
      sweep: [],
      written: null,
      costUsd: 0,
      tokens: 0,
      turns: 1,
    },
  })
  expect(await readdir(join(scratch, 'work'))).toEqual([])
})

it.each([
  ['hypothesis.txt', 'echo "Hypothesis: from the file" > hypothesis.txt; echo ignored', 'from the file'],
  ['NOTES.md', 'printf "# Idea: from the notes\\n\\nmore\\n" > NOTES.md; echo ignored', 'from the notes'],
  ['nothing', 'true', 'no hypothesis given'],
])('finds the idea in %s', async (_, script, hypothesis) => {
  expect((await run(`${EDIT}\n${script}\n`)).answer).toMatchObject({ proposal: { hypothesis } })
})

it('gives it the playbook, and the kernel’s history as CONTEXT.md', async () => {
  const { answer } = await run(`${EDIT}\ngrep -c 'Read once' program.md\ngrep -o 'roofline limit (memory)' CONTEXT.md\n`)
  expect(answer).toMatchObject({ proposal: { hypothesis: 'roofline limit (memory)' } })
})

describe('calls a proposal invalid, and says why, when the program', () => {
  it.each([
    ['changes program.md', `${EDIT}; echo x >> program.md`, /other files than kernel.py: program\.md/],
    ['adds files', `${EDIT}; mkdir d; echo x > d/bench.py; echo x > a.txt`, /other files than kernel.py: a\.txt, d\/bench\.py/],
    ['adds a link', `${EDIT}; ln -s /etc/passwd link`, /other files than kernel.py: link/],
    ['removes CONTEXT.md', `${EDIT}; rm CONTEXT.md`, /other files than kernel.py: CONTEXT\.md/],
    ['removes kernel.py', 'rm kernel.py', /left no file kernel.py/],
    ['puts a link in its place', 'ln -sf /etc/passwd kernel.py', /left no file kernel.py/],
    ['changes nothing', 'echo I could not find anything', /identical to the incumbent/],
    ['writes invalid UTF-8', "printf 'def kernel_fn(x): return x\\n#\\377' > kernel.py", /UTF-8/],
    ['writes 1 MB', `${EDIT}; head -c 1000000 /dev/zero | tr '\\0' '#' >> kernel.py`, /more than 256 KiB/],
    ['fails', 'echo no key >&2; exit 3', /exit code 3: no key/],
    ['is killed', 'kill -9 $$', /ended by SIGKILL/],
  ])('%s', async (_, script, why) => {
    expect((await run(script)).answer).toMatchObject({ kind: 'invalid', why: expect.stringMatching(why), agent: 'command' })
  })
})

it('gives a failed candidate back to be repaired, with the judge’s words', async () => {
  const failed = KERNEL.replace('NUM_WARPS = 4 ', 'NUM_WARPS = 3 ')
  const first = (await run(`sed -i 's/NUM_WARPS = 4 /NUM_WARPS = 3 /' kernel.py\n`)).answer
  if (first.kind !== 'proposal') throw new Error(first.kind)
  const repair = { experiment: 7, proposal: first.proposal, outcome: 'crash' as const, detail: 'num_warps must be a power of 2' }
  const script = `grep -o 'must be a power of 2' CONTEXT.md\ngrep -c 'NUM_WARPS = 3 ' kernel.py\nsed -i 's/NUM_WARPS = 3 /NUM_WARPS = 16 /' kernel.py\ntail -1 CONTEXT.md > /dev/null; echo repaired it\n`
  const { answer } = await run(script, { id: 2, repair })
  expect(failed).toBe(first.proposal.source)
  expect(answer).toMatchObject({ proposal: { source: FASTER, hypothesis: 'repair of #7: repaired it', thread: { ask: 2, repairs: 1 } } })
})

it('lets a coding agent keep its own hidden files and Python its caches', async () => {
  const { answer } = await run(
    `${EDIT}; mkdir -p .claude __pycache__; echo x > .claude/log; echo x > __pycache__/k.pyc; echo x > .agent.tags`,
  )
  expect(answer.kind).toBe('proposal')
})

it('calls a program that was tried before invalid', async () => {
  const tried = (hash: string): boolean => hash === normalizedHash(FASTER)
  expect((await run(EDIT, { tried })).answer).toMatchObject({ kind: 'invalid', why: expect.stringContaining('tried before') })
})

it('ends a program that hangs, and the children it left with its pipes', async () => {
  const start = performance.now()
  const { answer, scratch } = await run('sleep 30 & echo $! > "$(dirname "$0")/child"; wait', {}, 300)
  expect(answer).toMatchObject({ kind: 'invalid', why: expect.stringContaining('longer than 0.3 s') })
  expect(performance.now() - start).toBeLessThan(3000)
  const child = Number(await readFile(join(scratch, 'child'), 'utf8'))
  expect(isRunning(child)).toBe(false)
})

it('does not wait for what a finished program left running', async () => {
  const start = performance.now()
  expect((await run(`${EDIT}\nsleep 30 &\necho done\n`)).answer.kind).toBe('proposal')
  expect(performance.now() - start).toBeLessThan(3000)
})

it('bears 50 MB of output and takes its last line', async () => {
  expect((await run(`${EDIT}\nyes | head -c 50000000\necho\necho the end\n`)).answer).toMatchObject({ proposal: { hypothesis: 'the end' } })
})

it('ends the program and rejects when the run is stopped', async () => {
  const scratch = await scratchFolder()
  const stop = new AbortController()
  setTimeout(() => stop.abort(new Error('stopped')), 100)
  await expect(commandAgent({ command: 'sleep 30', scratch }).propose(request(), stop.signal)).rejects.toThrow('stopped')
  expect(await readdir(scratch)).toEqual([])
})

it('says in one line, before the run begins, that a program is not there', () => {
  expect(() => commandAgent({ command: 'no-such-agent -p', scratch: '/tmp' })).toThrow(EnvironmentError)
  expect(() => commandAgent({ command: './no-such-agent', scratch: '/tmp' })).toThrow("expected a program './no-such-agent', found none")
})

it('finds a program on the PATH, and one given by a path from where the run was started', () => {
  expect(findProgram('sh -c "a b"', '--command')).toEqual([expect.stringMatching(/^\/.*\/sh$/), '-c', 'a b'])
  expect(findProgram(`${relative(process.cwd(), process.execPath)} x`, '--command')).toEqual([process.execPath, 'x'])
})

it.each([
  ['claude -p', ['claude', '-p']],
  ['codex exec "a b" c\\ d', ['codex', 'exec', 'a b', 'c d']],
  [`sh -c 'echo "$HOME" > x; rm y'`, ['sh', '-c', 'echo "$HOME" > x; rm y']],
  ['a "" b', ['a', '', 'b']],
  ['a "say \\"hi\\" \\n"', ['a', 'say "hi" \\n']],
])('splits %j into words without a shell', (command, words) => {
  expect(splitWords(command, '--command')).toEqual(words)
})

it.each(['', '   ', '""', 'a "b'])('refuses %j as a command', (command) => {
  expect(() => splitWords(command, '--command')).toThrow('--command: expected')
})
