/** Plays events into the machine, for tests: a person's view of a run as what happened and what was asked for. */
import { initialState, step } from '../../src/core/machine.ts'
import type { Check } from '../../src/schema.ts'
import type { Baselines, Effect, Event, Happened, Rules, State } from '../../src/types.ts'
import { check, proposal, round, run, sha, timing } from './make.ts'

export const baselines: Baselines = {
  start: { us: 100, ci95: 1 },
  eager: { us: 150, ci95: 1 },
  vendor: { us: 120, ci95: 1 },
  compile: null,
  busy: false,
  shapes: [],
  roofline: { bound: 'memory', bytes: 1e6, flops: 1e6, limit_us: 20 },
}

/** Plays events into a machine and collects what it asks for. */
export class Play {
  state: State
  effects: Effect[] = []
  #seq = 0
  constructor(names: string[], rules: Partial<Rules> = {}) {
    this.state = initialState(run(names, rules))
  }
  happen(happened: Happened, at = this.#seq * 1000): Effect[] {
    const event: Event = { ...happened, seq: this.#seq++, at, wall: '2026-01-01T00:00:00.000Z' }
    const next = step(this.state, event)
    this.state = next.state
    this.effects.push(...next.effects)
    return next.effects
  }
  /** Starts and measures the baselines of every kernel; an agent has been asked when this returns. */
  begin(): Effect[] {
    this.happen({ type: 'started', rules: this.state.run.rules })
    return this.state.run.order.flatMap((name) => this.baselined(name))
  }
  baselined(target: string): Effect[] {
    return this.happen({ type: 'baselined', target, check: check(), timing: timing([]), baselines, detail: '' })
  }
  answer(source: string, target = 'rmsnorm', disposable = true): Effect[] {
    const incumbent = this.state.run.targets[target]?.incumbent ?? sha(0)
    return this.happen({
      type: 'answered',
      id: this.state.proposing.asked[0]?.id ?? 0,
      target,
      incumbent,
      answer: { kind: 'proposal', proposal: { ...proposal(target, source, incumbent), disposable } },
    })
  }
  /** From an answered proposal to its verdict: commit, check, and pairs in which it takes `us` against the incumbent's 100. */
  judge(number: number, us: number | 'wrong', said: Partial<Check> = {}): Effect[] {
    this.happen({ type: 'committed', number, commit: sha(100 + number) })
    if (us === 'wrong') return this.happen({ type: 'checked', number, check: check('wrong', 'smoke: 2x2 fp32 [0,1]: expected 1, got 2') })
    let effects = this.happen({ type: 'checked', number, check: { ...check(), ...said } })
    for (;;) {
      const time = effects.find((e) => e.type === 'time')
      if (time?.type !== 'time') return effects
      effects = this.happen({
        type: 'timed',
        number,
        timing: timing(Array.from({ length: time.rounds }, () => round({ incumbent: 100, candidate: us }))),
      })
    }
  }
  /** One pair of timings, of as many as were asked for. */
  timed(number: number, us: number): Effect[] {
    return this.happen({ type: 'timed', number, timing: timing([round({ incumbent: 100, candidate: us })]) })
  }
  rounds(): number {
    const { judging } = this.state
    return judging.phase === 'timing' ? judging.rounds.length : 0
  }
  keep(number: number): Effect[] {
    this.happen({
      type: 'confirmed',
      number,
      timing: timing(Array.from({ length: 3 }, () => round({ candidate: 80, start: 100, eager: 150, vendor: 120 }))),
    })
    return this.happen({ type: 'settled', number, tip: sha(200 + number) })
  }
}

export const kinds = (effects: Effect[]): string[] => effects.map((e) => e.type)
