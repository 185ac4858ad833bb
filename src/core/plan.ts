/** Profile -> targets, ranked by what they can give the whole model (Amdahl). */
import type { Backend, Profile, ProfileRow, Target } from '../schema.ts'
import { Dtype } from '../schema.ts'

const SPLIT_SHARE = 0.1 // two shapes that each hold this much of the model's time are targets of their own
const MIN_SHARE = 0.005
const BELIEVABLE = 5 // no ranking by a speedup beyond this, however far away the roofline is

export type Selection = { kind: 'all' } | { kind: 'top'; count: number } | { kind: 'named'; names: string[] }

/** Whole-model speedup when a part that takes `share` of the time becomes `speedup` times faster. */
export const amdahl = (share: number, speedup: number): number => 1 / (1 - share * (1 - 1 / speedup))

export function planTargets(profile: Profile, backend: Backend, selection: Selection): Target[] {
  const placed = new Set(profile.rows.filter((row) => row.sites.length > 0).map((row) => row.op))
  // An operation without a place in the model is tuned only for whoever asks for it by name, and put in by hand.
  const wanted = (row: ProfileRow) =>
    placed.has(row.op) ? row.sites.length > 0 : selection.kind === 'named' && selection.names.includes(row.op)
  const usable = profile.rows.filter((row) => row.op !== 'other' && wanted(row) && Dtype.safeParse(row.dtype).success)
  const groups = groupBy(usable, (row) => `${row.op} ${row.dtype}`)
  const targets = [...groups.values()].flatMap((rows) => split(rows).map((part) => toTarget(part, backend)))
  const ranked = targets
    .filter((t) => t.target.share >= MIN_SHARE)
    .sort((a, b) => b.gain - a.gain || a.target.name.localeCompare(b.target.name))
  const named = nameEach(ranked.map((t) => t.target))
  if (selection.kind === 'all') return named
  if (selection.kind === 'top') return named.slice(0, selection.count)
  return named.filter((t) => selection.names.includes(t.name) || selection.names.includes(t.op))
}

/** Rows that each hold a tenth of the model's time stand alone; what is left stays together. */
function split(rows: ProfileRow[]): ProfileRow[][] {
  const heavy = rows.filter((row) => row.share >= SPLIT_SHARE)
  if (heavy.length < 2) return [rows]
  const light = rows.filter((row) => row.share < SPLIT_SHARE)
  return [...heavy.map((row) => [row]), ...(light.length > 0 ? [light] : [])]
}

function toTarget(rows: ProfileRow[], backend: Backend): { target: Target; gain: number } {
  const first = rows[0] as ProfileRow
  const time = rows.reduce((sum, row) => sum + row.time_us, 0)
  const share = rows.reduce((sum, row) => sum + row.share, 0)
  const limit = rows.reduce((sum, row) => sum + (row.limit_us ?? 0), 0)
  const shapes = rows
    .toSorted((a, b) => b.time_us - a.time_us)
    .map((row) => ({ shape: row.shape, options: row.options, weight: row.time_us / time, calls: row.calls }))
  const target: Target = {
    name: first.op,
    op: first.op,
    op_file: null,
    dtype: Dtype.parse(first.dtype),
    backend,
    share,
    shapes,
    sites: [...new Set(rows.flatMap((row) => row.sites))],
  }
  return { target, gain: amdahl(share, limit > 0 ? Math.min(BELIEVABLE, Math.max(1, time / limit)) : BELIEVABLE) }
}

/** One target of an operation has its name; several are numbered by rank. */
function nameEach(targets: Target[]): Target[] {
  const total = groupBy(targets, (t) => t.op)
  const seen = new Map<string, number>()
  return targets.map((target) => {
    if ((total.get(target.op)?.length ?? 0) < 2) return target
    const index = (seen.get(target.op) ?? 0) + 1
    seen.set(target.op, index)
    return { ...target, name: `${target.op}-${index}` }
  })
}

function groupBy<T>(items: T[], key: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>()
  for (const item of items) groups.set(key(item), [...(groups.get(key(item)) ?? []), item])
  return groups
}
