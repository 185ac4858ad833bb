/** What a run says while it goes on, and the report it leaves for each experiment. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { firstLine } from './core/record.ts'
import { duration } from './core/report.ts'
import { best, pace } from './core/standing.ts'
import type { Io } from './io.ts'
import type { RunFolder } from './run-folder.ts'
import type { Check, Round } from './schema.ts'
import type { Event, Setting, State, TargetState } from './types.ts'

type Seen = { check: Check | null; rounds: Round[]; confirmed: Round[]; sweep: Setting[] }

const NOTHING: Seen = { check: null, rounds: [], confirmed: [], sweep: [] }

export function watchRun(io: Io, folder: RunFolder): (event: Event, state: State) => void {
  let seen = NOTHING
  let current: string | null = null
  let paused = false
  return (event, state) => {
    const { run } = state
    const { judging } = state
    if (event.type === 'committed' && judging.phase === 'checking') seen = { ...NOTHING, sweep: judging.experiment.proposal.sweep }
    if (event.type === 'swept' && judging.phase === 'committing') io.say(sweepLine(event.number, judging.proposal.sweep))
    if (event.type === 'checked') seen = { ...seen, check: event.check }
    if (event.type === 'timed') seen = { ...seen, rounds: [...seen.rounds, ...event.timing.rounds] }
    if (event.type === 'confirmed') seen = { ...seen, check: event.check ?? seen.check, confirmed: event.timing?.rounds ?? [] }
    if (event.type === 'baselined') io.say(baselineLine(event.target, run.targets[event.target], event.detail))
    if (state.paused !== paused) io.say(state.paused ? `paused; the device is free; go on with: autokernel resume ${run.name}` : 'going on')
    paused = state.paused
    if (event.type === 'settled') {
      writeFileSync(join(folder.reports, `${event.number}.json`), `${JSON.stringify(seen, null, 1)}\n`)
      io.say(experimentLine(event.number, state))
    }
    if (event.type === 'answered' && event.answer.kind === 'invalid')
      io.say(`   #${run.experiments}  invalid answer: ${firstLine(event.answer.why)}`)
    if (event.type === 'answered' && event.answer.kind === 'unavailable')
      io.say(`the provider is unavailable (${firstLine(event.answer.why)}); asking again in a minute`)
    if (run.current !== current) {
      const left = current === null ? null : run.targets[current]
      if (left?.left) io.say(`leaving ${left.target.name}: ${left.left}`)
      current = run.current
      const now = current === null ? null : run.targets[current]
      if (now)
        io.say(
          `${io.bold(now.target.name)}  ${(100 * now.target.share).toFixed(1)} % of the model, ${now.target.backend}, ${now.target.dtype}, ${now.target.shapes
            .map((s) => s.shape.join('x'))
            .slice(0, 3)
            .join(' ')}${now.target.shapes.length > 3 ? ' ...' : ''}`,
        )
    }
  }
}

function baselineLine(name: string, target: TargetState | undefined, detail: string): string {
  if (!target?.baselines) return `   ${name}: its starting kernel cannot be used here: ${firstLine(detail)}`
  const { start, eager, vendor, compile, roofline } = target.baselines
  const others = [
    `eager ${eager.us.toFixed(1)}`,
    vendor && `vendor ${vendor.us.toFixed(1)}`,
    compile && `compile ${compile.us.toFixed(1)}`,
  ].filter(Boolean)
  return `   ${name}: start ${start.us.toFixed(1)} us, ${others.join(', ')}; roofline ${roofline.limit_us.toFixed(1)} us (${roofline.bound})`
}

function sweepLine(number: number, sweep: Setting[]): string {
  const gains = sweep.flatMap(({ quick }) => quick?.gain ?? [])
  const best = gains.length > 0 ? `; the fastest at ${Math.max(...gains).toFixed(3)}x` : ''
  return `   #${String(number).padEnd(4)} swept ${sweep.length} settings by quick timing, ${gains.length} of them run${best}`
}

function experimentLine(number: number, { run }: State): string {
  const target = Object.values(run.targets).find((t) => t.attempts.at(-1)?.experiment === number)
  const attempt = target?.attempts.at(-1)
  if (!target || !attempt) return `   #${number}`
  const status = attempt.outcome === 'keep' ? 'KEEP' : attempt.outcome
  const gain = attempt.gain === null ? '' : `${attempt.gain.toFixed(3)}x`
  const idea = firstLine(attempt.hypothesis).slice(0, 70)
  const standing = [`best ${best(target)}`, duration(run.elapsedMs), pace(run, run.elapsedMs)].filter((part) => part !== '').join('; ')
  return `   #${String(number).padEnd(4)} ${target.target.name}  ${status.padEnd(12)} ${gain.padEnd(8)} ${idea}${attempt.outcome === 'keep' ? '' : `  (${attempt.detail.slice(0, 90)})`}  [${standing}]`
}
