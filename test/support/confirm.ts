/** The last measurement before a keep, with nobody to ask but a judge of the test's. */
import { performer } from '../../src/perform.ts'
import type { Evaluator, World } from '../../src/ports.ts'
import type { DeviceKind, Side, Timing } from '../../src/schema.ts'
import type { Rules } from '../../src/types.ts'
import { check, device, round, rules, run, sha, target, timing } from './make.ts'

/** Every side takes 100 us in every round. */
export function allAlike(sides: Side[], rounds: number): Timing {
  return timing(Array.from({ length: rounds }, () => round(Object.fromEntries(sides.map(({ name }) => [name, 100])))))
}

/** A judge that passes everything at 100 us, but for what `judge` does in its own way. */
export async function confirm(
  judge: Partial<Evaluator>,
  { asked = {}, kind = device.kind }: { asked?: Partial<Rules>; kind?: DeviceKind },
) {
  const nobody = (): never => {
    throw new Error('only the judge is asked')
  }
  const world: World = {
    evaluator: {
      check: async () => check(),
      time: async (_, sides, rounds) => allAlike(sides, rounds),
      counters: nobody,
      close: async () => {},
      ...judge,
    },
    agent: { name: 'nobody', propose: nobody },
    repo: { candidate: nobody, keep: nobody, reset: nobody, source: nobody },
    ledger: { append: nobody },
    fileOf: async (commit) => `${commit}.py`,
    withFiles: nobody,
    playbook: () => '',
    steer: () => '',
  }
  const experiment = { number: 1, commit: sha(2), parent: sha(1) }
  const effect = { type: 'confirm' as const, experiment, target: target('rmsnorm'), start: sha(1) }
  const state = { run: { ...run(['rmsnorm']), rules: { ...rules, ...asked }, device: { ...device, kind } }, paused: false }
  type Perform = ReturnType<typeof performer>
  return performer(world)(effect as Parameters<Perform>[0], state as Parameters<Perform>[1])
}
