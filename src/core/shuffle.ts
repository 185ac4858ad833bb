/** Seeded order without state: the same seed and key give the same place, and a range is walked in random order without listing it. */

/** 32 well-mixed bits of a text (FNV-1a, finished as murmur3 does). */
export function mix(text: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return scramble(hash)
}

/** A bijection of [0, size): a four-round Feistel network, walked again whenever it leaves the range. Sizes up to 2^52. */
export function permutation(size: number, seed: number): (index: number) => number {
  let half = 1
  while (2 ** (2 * half) < size) half += 1
  const base = 2 ** half
  const turn = (index: number): number => {
    let left = Math.floor(index / base)
    let right = index % base
    for (let round = 1; round <= 4; round++) {
      const mixed = scramble(right ^ Math.imul(seed + round, 0x9e3779b9)) % base
      const next = (left + mixed) % base
      left = right
      right = next
    }
    return left * base + right
  }
  return (index) => {
    let place = turn(index)
    while (place >= size) place = turn(place)
    return place
  }
}

function scramble(value: number): number {
  let hash = value
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}
