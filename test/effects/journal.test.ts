import { appendFileSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { expect, it } from 'vitest'
import { JournalFile, readJournal } from '../../src/effects/journal.ts'
import { UsageError } from '../../src/errors.ts'
import type { Event } from '../../src/types.ts'
import { tempFolder } from './temp.ts'

const HEADER = { format: 2, run: 'night-1', start: { seed: 3 } } as const
const event = (seq: number): Event => ({
  type: 'stop',
  reason: 'stopped',
  detail: 'ü\n\u2028',
  now: false,
  seq,
  at: seq * 10,
  wall: '2026-11-20T22:00:00.000Z',
})

async function journalOf(count: number): Promise<string> {
  const path = join(tempFolder(), 'events.jsonl')
  const journal = await JournalFile.create(path, HEADER)
  await Promise.all(Array.from({ length: count }, (_, seq) => journal.append(event(seq))))
  await journal.close()
  return path
}

it('reads back the header and every event that was appended, in order', async () => {
  const path = await journalOf(200)
  const recorded = await readJournal(path)
  expect(recorded.header).toEqual(HEADER)
  expect(recorded.events).toEqual(Array.from({ length: 200 }, (_, seq) => event(seq)))
  expect(readFileSync(path, 'utf8').split('\n')).toHaveLength(202)
})

it.each([1, 5, 40, 90])('ignores a last line that lost its last %i bytes, and removes it when the run resumes', async (lost) => {
  const path = await journalOf(3)
  truncateSync(path, readFileSync(path).length - lost)
  expect((await readJournal(path)).events).toHaveLength(2)
  const { journal, recorded } = await JournalFile.resume(path)
  expect(recorded.events).toHaveLength(2)
  await journal.append(event(2))
  await journal.close()
  expect((await readJournal(path)).events).toEqual([event(0), event(1), event(2)])
})

it('names the damaged line when one in the middle cannot be read', async () => {
  const path = await journalOf(3)
  const lines = readFileSync(path, 'utf8').split('\n')
  for (const [damage, why] of [
    ['{"type":"sto', /line 3 is damaged \(not JSON/],
    ['{"type":"stop"}', /line 3 is damaged \(no checksum/],
    [(lines[2] ?? '').replace('"stopped"', '"max-cost"'), /line 3 is damaged \(its checksum is [0-9a-f]{8}, expected [0-9a-f]{8}/],
    [lines[3] ?? '', /line 3 is damaged \(expected event 1, found 2/],
    ['\0'.repeat(80), /line 3 is damaged/],
  ] as const) {
    writeFileSync(path, lines.with(2, damage).join('\n'))
    const error = await readJournal(path).catch((caught: unknown) => caught)
    expect(error).toBeInstanceOf(UsageError)
    expect(String(error)).toMatch(why)
  }
})

it('refuses a file that is no journal, an empty one, and to start over an existing one', async () => {
  const path = await journalOf(1)
  await expect(JournalFile.create(path, HEADER)).rejects.toThrow(UsageError)
  const other = join(tempFolder(), 'events.jsonl')
  writeFileSync(other, '')
  await expect(readJournal(other)).rejects.toThrow(/empty/)
  appendFileSync(other, '{"format":1}\n')
  await expect(readJournal(other)).rejects.toThrow(/format 2/)
  const folder = join(tempFolder(), 'events.jsonl')
  mkdirSync(folder)
  await expect(readJournal(folder)).rejects.toThrow(
    new UsageError(`${folder}: expected the journal of a run, found a folder; restore the file, or start a new run`),
  )
})

it('refuses an event of a kind that this version does not know, with its line', async () => {
  const path = await journalOf(2)
  const text = JSON.stringify({ ...event(2), type: 'teleported' })
  appendFileSync(path, `${text.slice(0, -1)},"crc":"${crc32(text).toString(16).padStart(8, '0')}"}\n`)
  const expected = `${path}: line 4: expected an event that this version knows, found 'teleported'; go on with the version that wrote it`
  await expect(readJournal(path)).rejects.toThrow(new UsageError(expected))
})

it.each(['with a seal as ours', 'with none'])('names the format of a newer version %s, and says what can go on with it', async (seal) => {
  const path = join(tempFolder(), 'events.jsonl')
  const text = '{"format":3,"run":"night-1","begun":{}}'
  const crc = crc32(text).toString(16).padStart(8, '0')
  writeFileSync(path, `${seal === 'with none' ? text : `${text.slice(0, -1)},"crc":"${crc}"}`}\n`)
  const expected = `${path}: expected a journal of format 2, found format 3; go on with the version that wrote it`
  await expect(readJournal(path)).rejects.toThrow(new UsageError(expected))
})
