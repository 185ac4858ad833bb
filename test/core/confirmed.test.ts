/** A kernel that won its pairs is checked and measured anew before it is kept, and that decides. */
import { describe, expect, it } from 'vitest'
import { check, timing } from '../support/make.ts'
import { Play } from '../support/play.ts'

function confirming(): Play {
  const play = new Play(['rmsnorm'])
  play.begin()
  play.answer('a')
  play.judge(1, 80)
  return play
}

describe('the machine', () => {
  it.each<[string, 'wrong' | 'crash' | 'suspect']>([
    ['is found wrong', 'wrong'],
    ['crashes', 'crash'],
    ['is accused of not making its calls', 'suspect'],
  ])('keeps no kernel that %s where the winner is measured anew', (_, kind) => {
    const play = confirming()
    const failure = { side: 'candidate', kind, detail: 'while being timed' } as const
    const [settle] = play.happen({ type: 'confirmed', number: 1, timing: timing([], failure) })
    expect(settle).toMatchObject({ type: 'settle', row: { status: kind }, message: null })
  })

  it('keeps no kernel that fails the check beyond 2^31 elements, which comes last', () => {
    const play = confirming()
    const detail = 'large: rmsnorm 524304x4096 bf16: worst at [524288, 7]: expected 1, got 2'
    const [settle] = play.happen({ type: 'confirmed', number: 1, timing: null, check: check('wrong', detail) })
    expect(settle).toMatchObject({ type: 'settle', row: { status: 'wrong' }, message: null, verdict: { why: 'wrong', detail } })
  })

  it('says of a keep what its last check found', () => {
    const play = confirming()
    const last = { ...check(), worst_of_tolerance: 0.77 }
    const [settle] = play.happen({ type: 'confirmed', number: 1, timing: timing([]), check: last })
    expect(settle).toMatchObject({ row: { status: 'keep' }, message: expect.stringContaining('worst=0.77') })
  })

  it('keeps one beside which only a baseline fails where the winner is measured anew', () => {
    const play = confirming()
    const failure = { side: 'eager', kind: 'crash', detail: 'out of memory' } as const
    const [settle] = play.happen({ type: 'confirmed', number: 1, timing: timing([], failure) })
    expect(settle).toMatchObject({ type: 'settle', row: { status: 'keep' } })
  })
})
