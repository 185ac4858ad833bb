import { describe, expect, it } from 'vitest'
import { formatRow, HEADER } from '../../src/core/ledger.ts'
import { replaceRows, rowsOf } from '../../src/core/rows.ts'
import type { Row } from '../../src/row.ts'
import type { Effect, Event } from '../../src/types.ts'
import { run, sha } from '../support/make.ts'
import { Play } from '../support/play.ts'

/** A play that remembers its events, as a journal does. */
class Recorded extends Play {
  events: Event[] = []
  override happen(...[happened, at]: Parameters<Play['happen']>): Effect[] {
    const time = at ?? this.events.length * 1000
    this.events.push({ ...happened, seq: this.events.length, at: time, wall: '2026-01-01T00:00:00.000Z' })
    return super.happen(happened, time)
  }
  /** What the daemon wrote: rows as they were asked for, and a verdict's once git had moved. */
  written(): Row[] {
    return this.effects.flatMap((effect) => (effect.type === 'row' || effect.type === 'settle' ? effect.row : []))
  }
}

function aNight(): Recorded {
  const play = new Recorded(['rmsnorm'])
  play.begin()
  play.answer('a')
  play.judge(1, 110)
  play.happen({ type: 'settled', number: 1, tip: sha(1) })
  play.answer('b')
  play.judge(2, 80)
  play.keep(2)
  return play
}

describe('the rows of a journal', () => {
  it('are those that the machine asked for, a kept one with the commit that it became', () => {
    const play = aNight()
    const rows = rowsOf(run(['rmsnorm']), play.events)
    const kept = { status: 'keep', commit: sha(202) }
    expect(rows).toEqual(play.written().map((row) => (row.status === 'keep' ? { ...row, ...kept } : row)))
    expect(rows.map(({ experiment, status }) => [experiment, status])).toEqual([
      [0, 'baseline'],
      [0, 'baseline'],
      [0, 'baseline'],
      [1, 'discard'],
      [2, 'keep'],
    ])
  })

  it('do not hold a verdict that git never heard of', () => {
    const { events } = aNight()
    expect(rowsOf(run(['rmsnorm']), events.slice(0, -1)).map(({ experiment }) => experiment)).toEqual([0, 0, 0, 1])
  })

  it('hold a verdict once when a resumed run asked for it again', () => {
    const play = new Recorded(['rmsnorm'])
    play.begin()
    play.answer('a')
    play.judge(1, 110)
    play.happen({ type: 'started', rules: play.state.run.rules })
    play.happen({ type: 'settled', number: 1, tip: sha(1) })
    expect(rowsOf(run(['rmsnorm']), play.events).filter(({ experiment }) => experiment === 1)).toHaveLength(1)
  })
})

describe('rows put in the place of others', () => {
  const line = (name: string, experiment: number): string => [name, experiment, ...Array(21).fill('-')].join('\t')
  const file = (...lines: string[]): string => `${[HEADER, ...lines].join('\n')}\n`

  it.each<[string, string, string[], string]>([
    ['an empty file', '', [line('a', 1)], file(line('a', 1))],
    ['a header only', file(), [line('a', 1)], file(line('a', 1))],
    ['rows that are right', file(line('a', 1), line('b', 1)), [line('a', 1)], file(line('a', 1), line('b', 1))],
    [
      'rows between others',
      file(line('b', 1), line('a', 9), line('b', 2)),
      [line('a', 1), line('a', 2)],
      file(line('b', 1), line('a', 1), line('a', 2), line('b', 2)),
    ],
    ['too many rows', file(line('a', 1), line('a', 1), line('b', 1)), [line('a', 1)], file(line('a', 1), line('b', 1))],
    ['a last row that was cut short', `${file(line('a', 1))}a\t2\t-`, [line('a', 1), line('a', 2)], file(line('a', 1), line('a', 2))],
    [
      'a last row of somebody else without its newline',
      `${file(line('a', 1))}${line('b', 7)}`,
      [line('a', 1)],
      file(line('a', 1), line('b', 7)),
    ],
  ])('leave every other row as it is: %s', (_, before, lines, after) => {
    expect(replaceRows(before, 'a', lines)).toBe(after)
    expect(replaceRows(after, 'a', lines)).toBe(after)
  })

  it('give the bytes that the daemon wrote', () => {
    const play = aNight()
    const lines = rowsOf(run(['rmsnorm']), play.events).map(formatRow)
    const whole = file(...lines)
    expect(replaceRows(file(lines[0] ?? '', lines[4] ?? ''), 'test-run', lines)).toBe(whole)
  })
})
