/** Which sources a run has judged: grows by one an experiment and is never copied whole. */

/**
 * Hash -> experiment, in layers that each hold at least twice what the next one does: adding one costs log n on average,
 * where a copy of one record would cost n, and 5,000 experiments n squared. Plain data, so that a journal can hold it.
 */
export type Known = Record<string, number>[]

export function find(known: Known, hash: string): number | undefined {
  for (const layer of known) {
    if (Object.hasOwn(layer, hash)) return layer[hash]
  }
  return undefined
}

export function add(known: Known, hash: string, experiment: number): Known {
  const layers: { entries: Record<string, number>; size: number }[] = known.map((entries) => ({ entries, size: sizeOf(entries) }))
  let last = { entries: { [hash]: experiment } as Record<string, number>, size: 1 }
  for (let below = layers.at(-1); below && below.size <= 2 * last.size; below = layers.at(-1)) {
    layers.pop()
    last = { entries: { ...below.entries, ...last.entries }, size: below.size + last.size }
  }
  return [...layers, last].map(({ entries }) => entries)
}

const sizes = new WeakMap<Record<string, number>, number>() // counting keys is as slow as copying them

function sizeOf(layer: Record<string, number>): number {
  const known = sizes.get(layer) ?? Object.keys(layer).length
  sizes.set(layer, known)
  return known
}
