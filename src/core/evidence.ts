/** What measuring a kernel showed beyond one number: per shape, and what the compilers made of it. It says which tier of the playbook applies. */
import type { Compiler, Counters, Round, ShapeCase } from '../schema.ts'
import type { Attempt, Evidence } from '../types.ts'
import { latency, speedup } from './judge.ts'

export function evidenceOf(
  compiler: Compiler | null,
  rounds: Round[],
  side: string,
  shapes: ShapeCase[],
  counters: Counters | null = null,
): Evidence {
  const each = shapes.map((shape, i) => {
    const only = rounds.map((r) => ({ ...r, us: Object.fromEntries(Object.entries(r.us).map(([name, us]) => [name, [us[i] ?? []]])) }))
    return { us: latency(only, side, [shape])?.us ?? null, gain: speedup(only, 'incumbent', side, [shape])?.point ?? null }
  })
  return { compiler, counters, us: each.map(({ us }) => us), gains: each.map(({ gain }) => gain) }
}

/** In a few words for the table of attempts: the worst of its kernels, its shapes where they differ, what its sweep found. */
export function inShort({ evidence, points }: Pick<Attempt, 'evidence' | 'points'>): string {
  return [compiledInShort(evidence?.compiler ?? null), shapesInShort(evidence?.gains ?? []), sweepInShort(points)]
    .filter((text) => text !== '')
    .join('; ')
}

function compiledInShort(compiler: Compiler | null): string {
  if (compiler === null) return ''
  const { registers, spills, shared_bytes, occupancy, vector_width } = compiler
  return [
    registers === null ? '' : `${registers} registers`,
    spills ? `${spills} spilled` : '',
    shared_bytes ? `${(shared_bytes / 1024).toFixed(0)} KiB shared` : '',
    occupancy === null ? '' : `occupancy ${(100 * occupancy).toFixed(0)} %`,
    vector_width === null ? '' : `${vector_width}-bit vectors`,
  ]
    .filter((text) => text !== '')
    .join(', ')
}

const SHAPES = 6

function shapesInShort(gains: (number | null)[]): string {
  if (gains.length < 2 || gains.every((gain) => gain === null)) return ''
  const shown = gains.slice(0, SHAPES).map((gain) => gain?.toFixed(2) ?? '-')
  return `by shape ${shown.join(' ')}${gains.length > SHAPES ? ' ...' : ''}`
}

function sweepInShort(points: Attempt['points']): string {
  if (points.length < 2) return ''
  const run = points.flatMap(({ change, gain }) => (gain === null ? [] : [{ change, gain }])).sort((a, b) => b.gain - a.gain)
  const failed = points.length - run.length
  const best = run.slice(0, 3).map(({ change, gain }) => `${change} ${gain.toFixed(2)}`)
  return `swept ${points.length}${failed > 0 ? `, ${failed} did not run` : ''}: ${best.join(', ') || 'none runs'}`
}
