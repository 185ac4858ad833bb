/** The rows of results.tsv as a function of a run's journal: the same that its daemon wrote. */

import type { Row } from '../row.ts'
import type { CommitSha } from '../schema.ts'
import type { Event, Run } from '../types.ts'
import { HEADER } from './ledger.ts'
import { initialState, step } from './machine.ts'

/** In the order in which the machine asked for them. A verdict counts once git has moved and the journal says so. */
export function rowsOf(run: Run, events: Event[]): Row[] {
  const rows: (Row | number)[] = [] // a number: the verdict on that experiment
  const verdicts = new Map<number, { row: Row; keeps: boolean; tip: CommitSha | null }>()
  let state = initialState(run)
  for (const event of events) {
    const { judging } = state
    if (event.type === 'settled' && judging.phase === 'settling') {
      const verdict = verdicts.get(event.number)
      if (verdict) verdict.tip ??= event.tip
    }
    const next = step(state, event)
    state = next.state
    for (const effect of next.effects) {
      if (effect.type === 'row') rows.push(effect.row)
      if (effect.type !== 'settle') continue
      const { number } = effect.experiment
      if (verdicts.has(number)) continue // a resumed run asks again for what it finds unsettled
      verdicts.set(number, { row: effect.row, keeps: effect.message !== null, tip: null })
      rows.push(number)
    }
  }
  return rows.flatMap((entry) => {
    if (typeof entry !== 'number') return entry
    const verdict = verdicts.get(entry)
    if (!verdict || verdict.tip === null) return []
    return verdict.keeps ? { ...verdict.row, commit: verdict.tip } : verdict.row
  })
}

/**
 * A ledger with one run's lines replaced, in the places where it has lines of that run; further ones follow the last of these.
 * Every other row stays as it is, byte for byte.
 */
export function replaceRows(text: string, run: string, lines: string[]): string {
  const isOurs = (line: string): boolean => line.split('\t', 1)[0] === run
  const before = text === '' ? [HEADER] : text.split('\n')
  const tail = before.length > 1 ? (before.pop() ?? '') : ''
  // A last line without its newline: another run's full row stays, one that was cut short is none.
  if (!isOurs(tail) && tail.split('\t').length === HEADER.split('\t').length) before.push(tail)
  const last = before.findLastIndex(isOurs)
  const place = last === -1 ? before.length - 1 : last
  const rest = [...lines]
  const after = before.flatMap((line, at) => {
    const here = isOurs(line) ? rest.splice(0, 1) : [line]
    return at === place ? [...here, ...rest.splice(0)] : here
  })
  return `${after.join('\n')}\n`
}
