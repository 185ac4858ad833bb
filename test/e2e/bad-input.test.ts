import { chmodSync, existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { World } from '../support/world.ts'

const world = World.repository('broken/syntax_error.py', 'models/no_module.py', 'models/forward_raises.py')
afterAll(() => world.remove())

describe('bad input is one clear line and the right exit code', () => {
  it.each<[string, string[], RegExp]>([
    ['no model', ['optimize'], /--model: expected a Python file/],
    ['a model that is not there', ['optimize', '--model', 'nothing.py'], /expected a Python file, found none at .*nothing\.py/],
    ['a syntax error', ['optimize', '--model', 'syntax_error.py'], /syntax_error\.py.*line|syntax_error\.py:\d+/i],
    ['no nn.Module in it', ['optimize', '--model', 'no_module.py'], /nn\.Module/],
    ['a forward that raises', ['optimize', '--model', 'forward_raises.py'], /forward/],
    [
      'hours that are no number',
      ['optimize', '--model', 'llama.py', '--hours', 'abc'],
      /--hours: expected a number of hours such as 8 or 0\.5, got 'abc'/,
    ],
    ['a flag given twice', ['optimize', '--model', 'a.py', '--model', 'b.py'], /--model is given 2 times/],
    ['an unknown flag', ['optimize', '--modle', 'a.py'], /modle/],
    [
      'a run named out of its folder',
      ['optimize', '--model', 'llama.py', '--run', '../../out'],
      /--run: expected a name .*got '..\/..\/out'/,
    ],
    ['a value that is missing', ['optimize', '--model', 'llama.py', '--run', '-x'], /Not enough arguments following: run/],
    [
      'a flag of another command',
      ['optimize', '--model', 'llama.py', '--op-file', 'op.py'],
      /Unknown argument: op-file \(of autokernel bench\); see autokernel --help/,
    ],
    ['an unknown command', ['optimise'], /optimise/],
    ['an agent nobody knows', ['optimize', '--model', 'llama.py', '--agent', 'oracle', '--dry-run'], /--agent: expected .*got 'oracle'/],
    ['an experiment that is none', ['show', 'x'], /expected a run|number of an experiment/],
    ['a kernel file that is not there', ['bench', 'kernel.py'], /expected a file, found nothing/],
  ])('%s', async (_, args, message) => {
    const { code, stdout, stderr } = await world.autokernel(...args)
    const last = stderr.trimEnd().split('\n').at(-1)
    expect(last).toMatch(message)
    expect(last).toMatch(/^autokernel: /)
    expect(stderr).not.toMatch(/^\s+at /m)
    expect([code, stdout]).toEqual([2, ''])
  })

  it('and no name of a run leads out of its folder', () => {
    expect(existsSync(join(world.folder, 'out'))).toBe(false)
  })

  it('an unknown kernel is answered with the ones the model has', async () => {
    const { code, stderr } = await world.autokernel('optimize', '--model', 'custom.py', '--kernels', 'conv9d', '--dry-run')
    expect(stderr).toMatch(/--kernels: the model has no kernel 'conv9d'; it has /)
    expect(code).toBe(2)
  })

  it('a folder that is no git repository', async () => {
    const outside = World.empty()
    const { code, stderr } = await outside.autokernel('optimize', '--model', 'custom.py')
    expect(stderr).toMatch(/git/)
    expect(code).toBe(2)
    outside.remove()
  })

  // root may write anywhere, so there the refusal cannot be seen
  it.runIf(process.getuid?.() !== 0)('a folder that cannot be written to', async () => {
    const closed = join(world.folder, 'closed')
    mkdirSync(closed, { mode: 0o555 })
    const { code, stderr } = await world.autokernel('optimize', '-C', closed, '--model', 'custom.py')
    chmodSync(closed, 0o755)
    expect(stderr).toMatch(/expected to write to/)
    expect(code).toBe(3)
  })

  it('a GPU asked for where there is none', async () => {
    const { code, stderr } = await world.autokernel('optimize', '--model', 'custom.py', '--device', 'rocm')
    expect(stderr).toMatch(/--device rocm: expected a GPU that torch can use, found none/)
    expect(code).toBe(3)
  })

  it('with --json the error is a document too', async () => {
    const { code, stdout } = await world.autokernel('optimize', '--json', '--model', 'nothing.py')
    expect(JSON.parse(stdout)).toEqual({ error: expect.stringContaining('nothing.py'), exit: 2 })
    expect(code).toBe(2)
  })
})
