/**
 * Puts recorded pairs of processes to the daemon's own rule: what it keeps of identical kernels, and of true gains.
 * npx tsx scripts/judge-power.ts [folder or file, bench/samples unless told] [resamplings, 10000 unless told]
 */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { decide, speedup } from '../src/core/judge.ts'
import { Round, ShapeCase } from '../src/schema.ts'

const Kernel = z.object({ op: z.string(), shape: z.array(z.number()), rounds: z.array(Round) })
type Kernel = z.infer<typeof Kernel>
const Samples = z.object({
  device: z.object({ name: z.string(), torch: z.string() }),
  null: z.array(Kernel).default([]),
  gains: z.array(z.array(Kernel)).default([]),
  samples: z.array(z.array(Kernel)).default([]),
})

const RULE = { minGain: 0.01, maxPairs: 12 }
const SHAPES = [ShapeCase.parse({ shape: [1], weight: 1 })]
const [place = 'bench/samples', count = '10000'] = process.argv.slice(2)

for (const path of statSync(place).isDirectory()
  ? readdirSync(place)
      .filter((name) => name.endsWith('.json'))
      .map((name) => join(place, name))
  : [place]) {
  report(path, Number(count))
}

function report(path: string, resamplings: number): void {
  const { device, null: nothing, gains, samples } = Samples.parse(JSON.parse(readFileSync(path, 'utf8')))
  console.log(`${device.name}, torch ${device.torch} (${path})`)
  for (const [what, judgements] of [['null judgements', nothing] as const, ['true gains', gains.flat()] as const]) {
    for (const [name, some] of byKernel(judgements)) {
      const decided = some.map((one) => kept(one.rounds)).filter((outcome) => outcome !== null)
      const ratios = some.flatMap((one) => ratioOf(one.rounds) ?? [])
      // Many judgements end with a screening pair that says slower; the pairs after one do not lean to that side.
      const confirming = some.flatMap((one) => one.rounds.slice(1).flatMap((round) => ratioOf([round]) ?? []))
      console.log(
        `  ${name}: ${decided.filter(Boolean).length} of ${decided.length} real ${what} kept, median ratio ${middle(ratios).toFixed(4)}, of confirming pairs ${middle(confirming).toFixed(4)}`,
      )
    }
  }
  for (const [name, occasions] of byKernel(samples.flat())) {
    const usable = occasions.flatMap((one) => one.rounds.filter((round) => round.disturbed === null))
    if (usable.length < 2) console.log(`  ${name}: too few undisturbed pairs to draw from (${usable.length})`)
    else resample(name, usable, resamplings)
    compare(
      `${name} against itself`,
      occasions.map((one) => one.rounds),
    )
  }
  compare(
    'a true gain',
    gains.map((some) => some.flatMap((one) => one.rounds)),
  )
}

/** The same two kernels on several occasions. */
function compare(what: string, occasions: Round[][]): void {
  const ratios = occasions.flatMap((rounds) => ratioOf(rounds) ?? [])
  if (ratios.length < 2) return
  const apart = percent(Math.max(...ratios) / Math.min(...ratios) - 1)
  console.log(`  ${what} on ${ratios.length} occasions: ${ratios.map((r) => r.toFixed(4)).join(', ')} (${apart} apart)`)
}

function ratioOf(rounds: Round[]): number | undefined {
  return speedup(rounds, 'incumbent', 'candidate', SHAPES)?.point
}

function resample(name: string, rounds: Round[], times: number): void {
  const random = mulberry(1)
  const spread = deviationOfLogs(rounds)
  const shares = [1, 1.02, 1.03].map((gain) => {
    let keeps = 0
    for (let i = 0; i < times; i++) if (kept(draw(rounds, gain, random))) keeps++
    return `${gain === 1 ? 'nothing' : percent(gain - 1)} kept in ${percent(keeps / times)}`
  })
  console.log(`  ${name}: of ${rounds.length} pairs, ${percent(spread)} apart, ${times} resamplings: ${shares.join(', ')}`)
}

/** As many pairs as a judgement may take. Both sides ran the same kernel, so either may have been the incumbent. */
function draw(rounds: Round[], gain: number, random: () => number): Round[] {
  return Array.from({ length: RULE.maxPairs + 1 }, () => {
    const { us } = rounds[Math.floor(random() * rounds.length)] as Round
    const sides = [us.incumbent ?? [], us.candidate ?? []]
    const [incumbent = [], candidate = []] = random() < 0.5 ? sides : sides.reverse()
    const faster = candidate.map((visits) => visits.map((time) => time / gain))
    return { order: [], us: { incumbent, candidate: faster }, disturbed: null }
  })
}

/** Asks the rule as the daemon does, pairs as they are wanted; null where there were not enough of them. */
function kept(rounds: Round[]): boolean | null {
  for (let used = 0; ; ) {
    const decision = decide(rounds.slice(0, used), SHAPES, RULE)
    if (decision.kind === 'verdict') return decision.verdict.kind === 'keep'
    if (used >= rounds.length) return null
    used = Math.min(rounds.length, used + decision.rounds)
  }
}

function byKernel(some: Kernel[]): Map<string, Kernel[]> {
  const found = new Map<string, Kernel[]>()
  for (const one of some) {
    const name = `${one.op} ${one.shape.join('x')}`
    found.set(name, [...(found.get(name) ?? []), one])
  }
  return found
}

function deviationOfLogs(rounds: Round[]): number {
  const logs = rounds.flatMap((round) => {
    const ratio = ratioOf([round])
    return ratio === undefined ? [] : [Math.log(ratio)]
  })
  const mean = logs.reduce((a, b) => a + b, 0) / logs.length
  return Math.sqrt(logs.reduce((sum, x) => sum + (x - mean) ** 2, 0) / Math.max(1, logs.length - 1))
}

function middle(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}

function percent(share: number): string {
  return `${(100 * share).toFixed(2)} %`
}

/** A small generator with a seed, so that the table comes out the same twice. */
function mulberry(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}
