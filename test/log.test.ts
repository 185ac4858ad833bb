import { chmodSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it, onTestFinished, vi } from 'vitest'
import { makeIo } from '../src/io.ts'
import { withLog } from '../src/log.ts'
import { tempFolder } from './effects/temp.ts'

const TIME = String.raw`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`
const ESCAPE = String.fromCharCode(27)

function logged(flags: { quiet?: boolean; detached?: boolean } = {}): { io: ReturnType<typeof withLog>; file: string; out: string[] } {
  const file = join(tempFolder(), 'log.txt')
  const out: string[] = []
  for (const stream of [process.stdout, process.stderr])
    vi.spyOn(stream, 'write').mockImplementation((text) => {
      out.push(String(text))
      return true
    })
  onTestFinished(() => void vi.restoreAllMocks())
  const plain = { json: false, quiet: false, verbose: false, color: false, detached: false, cwd: '/', ...flags }
  return { io: withLog(makeIo(plain, {}), file), file, out }
}

it('writes down with the time what is said at the terminal, without its colours', () => {
  const { io, file, out } = logged()
  io.say(`${ESCAPE}[1mrmsnorm${ESCAPE}[22m  first\nsecond`)
  io.print('a result')
  expect(readFileSync(file, 'utf8')).toMatch(new RegExp(`^${TIME} rmsnorm  first\n${TIME} second\n${TIME} a result\n$`))
  expect(out).toEqual([`${ESCAPE}[1mrmsnorm${ESCAPE}[22m  first\nsecond\n`, 'a result\n'])
})

it('writes down what --quiet keeps from the terminal', () => {
  const { io, file, out } = logged({ quiet: true })
  io.say('progress')
  expect(readFileSync(file, 'utf8')).toContain(' progress\n')
  expect(out).toEqual([])
})

it('says why a run in the foreground ended; in the background the last words go there by themselves', () => {
  const foreground = logged()
  foreground.io.failed(new Error('the disk is full'))
  expect(readFileSync(foreground.file, 'utf8')).toMatch(/ ended: the disk is full\n$/)
  const background = logged({ detached: true })
  background.io.say('once')
  background.io.failed(new Error('twice'))
  expect(readFileSync(background.file, 'utf8')).toMatch(new RegExp(`^${TIME} once\n$`))
  expect(background.out).toEqual([])
})

it('is no reason to end a run when it cannot be written', () => {
  const { io, file, out } = logged()
  io.say('one')
  chmodSync(file, 0o400)
  const nowhere = withLog(io, join(file, 'not-a-folder', 'log.txt'))
  expect(() => nowhere.say('two')).not.toThrow()
  expect(out.at(-1)).toBe('two\n')
})
