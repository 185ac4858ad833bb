/** A journal that was cut or changed on the disk: read up to the last whole line, or refused by the line; never read as something else. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { FORMAT, JournalFile, readJournal } from '../../src/effects/journal.ts'
import { UsageError } from '../../src/errors.ts'
import type { Event, Happened } from '../../src/types.ts'
import { check, round, rules, sha, timing } from '../support/make.ts'
import { tempFolder } from './temp.ts'

const HAPPENED: Happened[] = [
  { type: 'started', rules },
  { type: 'committed', number: 1, commit: sha(2) },
  { type: 'checked', number: 1, check: check('pass', 'ünïcode €') },
  { type: 'timed', number: 1, timing: timing([round({ candidate: 9, incumbent: 10 })]) },
  { type: 'settled', number: 1, tip: sha(3) },
]
const EVENTS = HAPPENED.map((happened, seq): Event => ({ ...happened, seq, at: seq * 10, wall: '2026-01-01T00:00:00.000Z' }))

async function written(): Promise<{ path: string; whole: Buffer; lastThree: number }> {
  const path = join(tempFolder(), 'events.jsonl')
  const journal = await JournalFile.create(path, { format: FORMAT, run: 'night', start: {} })
  for (const event of EVENTS) await journal.append(event)
  await journal.close()
  const whole = readFileSync(path)
  const lines = whole.toString('latin1').split('\n')
  return { path, whole, lastThree: lines.slice(0, -4).join('\n').length + 1 }
}

describe('a damaged journal', () => {
  it('cut at any byte of its last three lines holds the events of the lines that are whole, and goes on behind them', async () => {
    const { path, whole, lastThree } = await written()
    for (let cut = lastThree; cut < whole.length; cut++) {
      const left = whole.subarray(0, cut)
      writeFileSync(path, left)
      const lines = left.toString('latin1').split('\n').length - 2 // without the header, and without what is cut short
      expect((await readJournal(path)).events).toEqual(EVENTS.slice(0, lines))
      if (cut % 16 !== 0) continue
      const { journal } = await JournalFile.resume(path)
      for (const event of EVENTS.slice(lines)) await journal.append(event)
      await journal.close()
      expect(readFileSync(path)).toEqual(whole)
    }
  })

  it('with a bit flipped in any byte of its last three lines is refused with the number of the line, or has lost its last line', async () => {
    const { path, whole, lastThree } = await written()
    const outcomes = { refused: 0, shorter: 0 }
    for (let at = lastThree; at < whole.length; at++) {
      const flipped = Buffer.from(whole)
      flipped[at] = (flipped[at] ?? 0) ^ (1 << (at % 8))
      writeFileSync(path, flipped)
      const read = await readJournal(path).catch((error: unknown) => error)
      if (read instanceof UsageError) {
        const line = whole.subarray(0, at).toString('latin1').split('\n').length
        expect(read.message).toMatch(new RegExp(`: line ${line} is damaged`))
        outcomes.refused++
      } else {
        expect(at).toBe(whole.length - 1) // the last newline: a line that has none was cut short
        expect(read).toMatchObject({ events: EVENTS.slice(0, -1) })
        outcomes.shorter++
      }
    }
    expect(outcomes).toEqual({ refused: whole.length - lastThree - 1, shorter: 1 })
  })
})
