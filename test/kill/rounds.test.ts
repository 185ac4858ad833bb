import { describe, expect, it } from 'vitest'
import { chosen } from './rounds.ts'

const rounds = (...names: string[]) => names.map((name) => ({ name }))

describe('AUTOKERNEL_KILL_ONLY', () => {
  it('plays the round of that name alone, and nothing in a test that has no rounds of its kind', () => {
    const daemon = rounds('daemon at 1, 96', 'daemon at 2, 97')
    expect(chosen(daemon, undefined)).toEqual(daemon)
    expect(chosen(daemon, 'daemon at 2, 97')).toEqual(rounds('daemon at 2, 97'))
    expect(chosen(daemon, 'cut 1')).toEqual([])
    expect(chosen([], 'daemon at 2, 97')).toEqual([])
  })

  it.each([
    ['power at 9999', 'power at 3; power at 40'],
    ['pwoer at 3', 'daemon at N'],
    ['power', 'power at N'],
    ['', 'judge N'],
  ])("fails over '%s', which matches no round, and says which there are", (name, told) => {
    expect(() => chosen(rounds('power at 3', 'power at 40'), name)).toThrow(new RegExp(`^AUTOKERNEL_KILL_ONLY: .*${told}`))
  })
})
