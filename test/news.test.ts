import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it, vi } from 'vitest'
import { EnvironmentError, UsageError } from '../src/errors.ts'
import { makeIo } from '../src/io.ts'
import { withLog } from '../src/log.ts'
import { addressOf, News } from '../src/news.ts'
import { runFolder } from '../src/run-folder.ts'
import { tempFolder } from './effects/temp.ts'

function told(
  program: [string, ...string[]],
  stallMs?: number,
  interrupted = new AbortController().signal,
): { news: News; said: string[] } {
  const folder = tempFolder()
  const flags = { json: false, quiet: true, verbose: false, color: false, detached: false, cwd: folder }
  const said: string[] = []
  const io = { ...withLog(makeIo(flags, {}), join(folder, 'log.txt')), say: (text: string) => void said.push(text) }
  return { news: new News({ program }, runFolder(folder, 'night'), io, interrupted, stallMs), said }
}

const lines = (file: string): string[] => readFileSync(file, 'utf8').trimEnd().split('\n')

it('says in the log why news could not be delivered, and goes on', async () => {
  const { news, said } = told(['false'])
  await news.tell('end', 'all is well')
  expect(said).toEqual(['--notify: the news of this end could not be delivered: it ended (exit code 1)'])
})

it('lets nobody wait who interrupts the run, and does not tell them what they know', async () => {
  const interruption = new AbortController()
  const { news, said } = told(['sleep', '19'], undefined, interruption.signal)
  setTimeout(() => interruption.abort(), 100)
  await news.tell('end', 'all is well')
  expect(said).toEqual(['--notify: the news of this end could not be delivered: it was interrupted'])
  await news.tell('error', 'it was interrupted')
  expect(said).toHaveLength(1)
}, 5_000)

it('makes one line of whatever is to be told', async () => {
  const file = join(tempFolder(), 'news')
  await told(['tee', file]).news.tell('error', '  two\nlines\tof it ')
  expect(lines(file)).toEqual(['two lines of it'])
})

it('tells a stall once for each long silence, and none while nothing can be finished', async () => {
  const file = join(tempFolder(), 'news')
  writeFileSync(file, '')
  const { news, said } = told(['tee', '-a', file], 60)
  const silences = async (count: number): Promise<void> => vi.waitFor(() => expect(lines(file).filter(Boolean)).toHaveLength(count))
  news.alive(true)
  await silences(1)
  await new Promise((resolve) => setTimeout(resolve, 200))
  await silences(1)
  news.alive(true)
  await silences(2)
  news.alive(true)
  news.alive(false) // paused
  await new Promise((resolve) => setTimeout(resolve, 200))
  await silences(2)
  expect(lines(file)[0]).toMatch(/^night: nothing was finished for \d+ minutes; look: autokernel logs night$/)
  expect(said).toHaveLength(2)
})

it.each([
  ['https://example.org/hook', { url: 'https://example.org/hook' }],
  ['sh -c "mail me"', { program: [expect.stringMatching(/^\/.*sh$/), '-c', 'mail me'] }],
])('reads --notify %s', (text, address) => {
  expect(addressOf(text)).toEqual(address)
})

it.each([
  ['no-such-mailer me', EnvironmentError, "--notify: expected a program 'no-such-mailer'"],
  ['ftp://example.org', UsageError, '--notify: expected a URL such as'],
  ['https://', UsageError, '--notify: expected a URL such as'],
  ['https://me:secret@example.org', UsageError, 'may not hold a user and password'],
  ['sh -c "mail', UsageError, '--notify: expected a closing "'],
])('refuses --notify %s before anything begins', (text, kind, words) => {
  expect(() => addressOf(text)).toThrow(kind)
  expect(() => addressOf(text)).toThrow(words)
  expect(() => addressOf(text)).not.toThrow('secret')
})
