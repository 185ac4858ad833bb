import { describe, expect, it } from 'vitest'
import { finished } from '../../src/core/machine.ts'
import type { Answer, Happened } from '../../src/types.ts'
import { check, FREE, sha } from '../support/make.ts'
import { kinds, Play } from '../support/play.ts'

describe('a run', () => {
  it('measures the baselines of a kernel before it asks for ideas, and writes a row for each', () => {
    const play = new Play(['rmsnorm'])
    expect(kinds(play.happen({ type: 'started', rules: play.state.run.rules }))).toEqual(['baseline'])
    expect(kinds(play.baselined('rmsnorm'))).toEqual(['row', 'row', 'row', 'ask'])
  })

  it('asks for the next idea while the one before is judged', () => {
    const play = new Play(['rmsnorm'])
    play.begin()
    expect(kinds(play.answer('a'))).toEqual(['commit', 'ask'])
    expect(play.state.judging.phase).toBe('committing')
    expect(play.state.proposing.asked).toHaveLength(1)
  })

  it('keeps a faster kernel: confirms it, then moves git and writes the row in one effect', () => {
    const play = new Play(['rmsnorm'], { maxExperiments: 1 })
    play.begin()
    play.answer('a')
    expect(kinds(play.judge(1, 80))).toEqual(['confirm'])
    play.keep(1)
    const settle = play.effects.find((e) => e.type === 'settle')
    expect(settle).toMatchObject({
      row: { status: 'keep', speedupIncumbent: expect.closeTo(1.25, 5), latencyUs: 80 },
      message: expect.stringContaining('1.25x (100.0 -> 80.0 us)'),
    })
    expect(play.state.run).toMatchObject({
      best: sha(201),
      stop: { reason: 'max-experiments' },
      targets: { rmsnorm: { incumbent: sha(201), keeps: 1, latency: { us: 80 } } },
    })
    expect(finished(play.state)).toBe(true)
  })

  it.each<[string, number | 'wrong', string]>([
    ['slower', 110, 'discard'],
    ['faster by less than the minimum gain', 99.5, 'discard'],
    ['wrong', 'wrong', 'wrong'],
  ])('discards a kernel that is %s, with git reset and no commit message', (_, us, status) => {
    const play = new Play(['rmsnorm'])
    play.begin()
    play.answer('a')
    expect(play.judge(1, us)[0]).toMatchObject({ type: 'settle', row: { status }, message: null })
    play.happen({ type: 'settled', number: 1, tip: sha(1) })
    expect(play.state.run.targets.rmsnorm).toMatchObject({ discardsInARow: 1, incumbent: sha(1) })
  })

  it('holds what beats physics for a person and does not keep it', () => {
    const play = new Play(['rmsnorm'])
    play.begin()
    play.answer('a')
    expect(play.judge(1, 10)[0]).toMatchObject({
      type: 'settle',
      verdict: { kind: 'hold', why: 'suspect' },
      row: { status: 'suspect' },
      message: null,
    })
  })

  it('holds a win whose source says something without writing it', () => {
    const play = new Play(['rmsnorm'])
    play.begin()
    play.answer('a')
    const odd = { held: 'line 3: getattr of a name that is computed' }
    expect(play.judge(1, 80, odd)[0]).toMatchObject({
      type: 'settle',
      verdict: { kind: 'hold', why: 'suspect', detail: expect.stringContaining('line 3') },
      message: null,
    })
  })

  it('moves to the next kernel after the given number of discards in a row', () => {
    const play = new Play(['rmsnorm', 'softmax'], { maxDiscards: 2 })
    play.begin()
    for (const number of [1, 2]) {
      play.answer(`source ${number}`)
      play.judge(number, 110)
      play.happen({ type: 'settled', number, tip: sha(1) })
    }
    expect(play.state.run.targets.rmsnorm?.left).toBe('plateau')
    expect(play.state.run.current).toBe('softmax')
  })

  it('throws a free idea away when the incumbent it was written against is gone, and judges a paid one all the same', () => {
    for (const disposable of [true, false]) {
      const play = new Play(['rmsnorm'])
      play.begin()
      play.answer('a')
      play.judge(1, 80)
      play.answer('b', 'rmsnorm', disposable)
      play.keep(1)
      expect(play.effects.filter((e) => e.type === 'commit')).toHaveLength(disposable ? 1 : 2)
    }
  })

  it('does not judge the same source twice: the second is a row of its own, without a commit', () => {
    const play = new Play(['rmsnorm'])
    play.begin()
    play.answer('a')
    play.judge(1, 110)
    play.happen({ type: 'settled', number: 1, tip: sha(1) })
    expect(play.answer('a')[0]).toMatchObject({
      type: 'row',
      row: { status: 'invalid', description: expect.stringContaining('same source as experiment 1') },
    })
    expect(play.state.run.targets.rmsnorm?.discardsInARow).toBe(1)
  })

  it('takes "nothing left" at its word only when no verdict is out', () => {
    const play = new Play(['rmsnorm'])
    play.begin()
    play.answer('a')
    const answer: Answer = { kind: 'exhausted', why: 'all tried' }
    const none = (id: number): Happened => ({ type: 'answered', id, target: 'rmsnorm', incumbent: sha(1), answer })
    play.happen(none(2))
    expect(play.state.run.targets.rmsnorm?.left).toBe(null)
    play.judge(1, 110)
    expect(kinds(play.happen({ type: 'settled', number: 1, tip: sha(1) }))).toEqual(['ask'])
    play.happen(none(3))
    expect(play.state.run.stop).toMatchObject({ reason: 'exhausted' })
  })

  it('asks again when "nothing left" was said of an incumbent that is gone, and no verdict is out that it could wait for', () => {
    const play = new Play(['rmsnorm'])
    play.begin()
    play.answer('a')
    play.judge(1, 80)
    play.keep(1)
    const answer: Answer = { kind: 'exhausted', why: 'the inbox has been empty for 10 minutes' }
    expect(play.happen({ type: 'answered', id: 2, target: 'rmsnorm', incumbent: sha(1), answer })).toMatchObject([
      { type: 'ask', incumbent: sha(201) },
    ])
  })

  it('asks again after "nothing left" when the idea that waited to be judged was out of date', () => {
    const play = new Play(['rmsnorm'], { inFlight: 3 })
    play.begin()
    play.answer('a')
    play.judge(1, 80)
    play.answer('b') // free, and for the incumbent that is about to go
    play.happen({ type: 'paused' })
    play.keep(1)
    const answer: Answer = { kind: 'exhausted', why: 'all tried' }
    play.happen({ type: 'answered', id: play.state.proposing.asked[0]?.id ?? 0, target: 'rmsnorm', incumbent: sha(1), answer })
    expect(play.state.proposing).toMatchObject({ asked: [], ready: [{ source: 'b' }], waiting: 'verdict' })
    expect(play.happen({ type: 'resumed' })).toContainEqual(expect.objectContaining({ type: 'ask', incumbent: sha(201) }))
  })

  it('goes on with the next kernel when a starting kernel cannot be used here', () => {
    const play = new Play(['rmsnorm', 'softmax'])
    play.happen({ type: 'started', rules: play.state.run.rules })
    const effects = play.happen({
      type: 'baselined',
      target: 'rmsnorm',
      check: check('crash', 'SIGSEGV'),
      timing: null,
      baselines: null,
      detail: 'crash: SIGSEGV',
    })
    expect(effects).toMatchObject([
      { type: 'row', row: { description: expect.stringContaining('SIGSEGV') } },
      { type: 'baseline', target: { name: 'softmax' } },
    ])
  })

  it('records what the judge declines as interrupted, and leaves a kernel that it declines again and again', () => {
    const play = new Play(['rmsnorm', 'softmax'])
    play.begin()
    for (const number of [1, 2, 3]) {
      play.answer(`source ${number}`)
      play.happen({ type: 'committed', number, commit: sha(100 + number) })
      if (number === 3) play.happen({ type: 'checked', number, check: check() })
      const [settle] = play.happen({ type: 'declined', number, detail: 'the reference ran out of memory' })
      expect(settle).toMatchObject({
        type: 'settle',
        row: { status: 'interrupted', description: expect.stringContaining('out of memory') },
      })
      expect(play.state.run.current).toBe('rmsnorm')
      play.happen({ type: 'settled', number, tip: sha(1) })
    }
    expect(play.state.run.targets.rmsnorm).toMatchObject({ left: 'broken', discardsInARow: 0 })
    expect(play.state.run.current).toBe('softmax')
  })

  it('cuts off what is under way at the deadline, records no verdict for it, and takes it up again when resumed', () => {
    const play = new Play(['rmsnorm'])
    play.begin()
    play.answer('a')
    play.happen({ type: 'committed', number: 1, commit: sha(101) })
    expect(kinds(play.happen({ type: 'deadline' }))).toEqual(['abort'])
    expect(finished(play.state)).toBe(true)
    expect(play.effects.filter((e) => e.type === 'settle')).toEqual([])
    expect(play.happen({ type: 'started', rules: play.state.run.rules })[0]).toMatchObject({ type: 'check', experiment: { number: 1 } })
  })

  it('waits for a provider that is down, and asks again', () => {
    const play = new Play(['rmsnorm'])
    play.begin()
    expect(
      kinds(
        play.happen({
          type: 'answered',
          id: 1,
          target: 'rmsnorm',
          incumbent: sha(1),
          answer: { kind: 'unavailable', why: '529', ...FREE },
        }),
      ),
    ).toEqual(['wait'])
    expect(kinds(play.happen({ type: 'woke' }))).toEqual(['ask'])
  })

  it('sits out a provider that refuses connections for an hour: no row, no discard, no money, and the next idea is judged', () => {
    const play = new Play(['rmsnorm'])
    play.begin()
    const before = play.state.run.targets.rmsnorm
    for (let minute = 1; minute <= 60; minute++) {
      const at = minute * 60_000
      const answer = { kind: 'unavailable' as const, why: 'connection refused', ...FREE }
      const id = play.state.proposing.asked[0]?.id ?? 0
      expect(kinds(play.happen({ type: 'answered', id, target: 'rmsnorm', incumbent: sha(1), answer }, at))).toEqual(['wait'])
      expect(kinds(play.happen({ type: 'woke' }, at + 59_000))).toEqual(['ask'])
    }
    expect(play.state.run).toMatchObject({ stop: null, experiments: 0, costUsd: 0, turns: 0 })
    expect(play.state.run.targets.rmsnorm).toMatchObject({ discardsInARow: 0, attempts: before?.attempts, left: null })
    expect(play.effects.filter((e) => e.type === 'row' && e.row.experiment > 0)).toEqual([])
    expect(kinds(play.answer('a'))).toContain('commit')
  })

  it('comes back to kernels it left while time remains', () => {
    const play = new Play(['rmsnorm', 'softmax'], { maxDiscards: 1 })
    play.begin()
    play.answer('a')
    play.judge(1, 110)
    play.happen({ type: 'settled', number: 1, tip: sha(1) })
    play.answer('b', 'softmax')
    play.judge(2, 110)
    play.happen({ type: 'settled', number: 2, tip: sha(1) })
    expect(play.answer('late idea for the kernel that was left', 'softmax')).toMatchObject([{ type: 'ask', target: 'rmsnorm' }])
    expect(play.state.run.targets.rmsnorm).toMatchObject({ visits: 2, discardsInARow: 0, left: null })
  })
})
