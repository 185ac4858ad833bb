/** Applies a model's diff or search/replace blocks: by content, since line numbers in a model's diff are guesses. */

export type Patched = { ok: true; source: string } | { ok: false; why: string }

type Hunk = {
  at: number | null // line from 0 that the header claims
  before: string[]
  after: (string | number)[] // a new line, or which of `before` stays: as it stands in the file, not as the model copied it
}

export function applyDiff(source: string, diff: string): Patched {
  const hunks = hunksOf(diff)
  if (hunks.length === 0) return { ok: false, why: 'the diff holds no hunk (no @@ line)' }
  let lines = source.split('\n')
  let shift = 0 // how far earlier hunks moved the lines that this one names
  for (const [i, hunk] of hunks.entries()) {
    const hint = hunk.at === null ? null : hunk.at + shift
    const place = hunk.before.length > 0 ? locate(lines, hunk.before, hint) : insertion(lines, hint)
    if (typeof place === 'string') return { ok: false, why: `hunk ${i + 1} of ${hunks.length} does not apply: ${place}` }
    shift += hunk.after.length - hunk.before.length
    lines = replaced(lines, place, hunk)
  }
  return { ok: true, source: lines.join('\n') }
}

export function applySearchReplace(source: string, text: string): Patched {
  const blocks = searchesOf(text)
  if (blocks === null) return { ok: false, why: 'a SEARCH block without its ======= and REPLACE lines' }
  let lines = source.split('\n')
  for (const [i, block] of blocks.entries()) {
    const place = block.before.some((line) => line.trim()) ? locate(lines, block.before, null) : 'its SEARCH part is empty'
    if (typeof place === 'string') return { ok: false, why: `search/replace block ${i + 1} of ${blocks.length} does not apply: ${place}` }
    lines = replaced(lines, place, block)
  }
  return { ok: true, source: lines.join('\n') }
}

function searchesOf(text: string): Hunk[] | null {
  const blocks: Hunk[] = []
  let part: 'outside' | 'before' | 'after' = 'outside'
  for (const line of text.replaceAll('\r\n', '\n').split('\n')) {
    if (part === 'outside' && /^<{5,} ?SEARCH/.test(line)) {
      blocks.push({ at: null, before: [], after: [] })
      part = 'before'
    } else if (part === 'before' && /^={5,}$/.test(line)) part = 'after'
    else if (part === 'after' && /^>{5,} ?REPLACE/.test(line)) part = 'outside'
    else if (part !== 'outside') blocks.at(-1)?.[part].push(line)
  }
  return blocks.length > 0 && part === 'outside' ? blocks : null
}

function hunksOf(diff: string): Hunk[] {
  const hunks: Hunk[] = []
  const lines = diff.replaceAll('\r\n', '\n').replace(/\n$/, '').split('\n')
  for (const [i, line] of lines.entries()) {
    const header = /^@@(?: -(\d+)(?:,(\d+))?)?/.exec(line)
    const hunk = hunks.at(-1)
    if (header) hunks.push({ at: header[1] === undefined ? null : Math.max(0, Number(header[1]) - 1), before: [], after: [] })
    else if (!hunk || line.startsWith('\\') || /^(diff --git|index) /.test(line)) continue
    else if (line.startsWith('--- ') && lines[i + 1]?.startsWith('+++ ')) continue
    else if (line.startsWith('+++ ') && lines[i - 1]?.startsWith('--- ')) continue
    else if (line.startsWith('+')) hunk.after.push(line.slice(1))
    else if (line.startsWith('-')) hunk.before.push(line.slice(1))
    else {
      const context = line.startsWith(' ') ? line.slice(1) : line // models drop the blank in front of an empty line
      hunk.after.push(hunk.before.push(context) - 1)
    }
  }
  for (const { before, after } of hunks) {
    while (before.length > 1 && before.at(-1) === '' && after.at(-1) === before.length - 1) {
      before.pop() // an empty line in front of the closing fence is rarely meant as context
      after.pop()
    }
  }
  return hunks.filter(({ before, after }) => before.length + after.length > 0)
}

/** Where these lines stand: exactly, else but for blanks at line ends; nearest to the hint; never a guess between two places. */
function locate(lines: string[], wanted: string[], hint: number | null): number | string {
  for (const same of [(a: string, b: string) => a === b, (a: string, b: string) => a.trimEnd() === b.trimEnd()]) {
    const places = lines.flatMap((_, i) => (wanted.every((line, k) => same(lines[i + k] ?? '\0', line)) ? [i] : []))
    if (places.length === 0) continue
    if (places.length === 1 || hint !== null) return nearest(places, hint ?? 0)
    return `its lines stand at ${places.length} places; give more context`
  }
  const missing = wanted.find((line) => line.trim() && !lines.some((known) => known.trimEnd() === line.trimEnd()))
  return missing === undefined ? 'its lines are not together in kernel.py' : `kernel.py has no line '${missing.trim().slice(0, 120)}'`
}

function replaced(lines: string[], place: number, { before, after }: Hunk): string[] {
  const kept = after.map((line) => (typeof line === 'string' ? line : (lines[place + line] ?? '')))
  return [...lines.slice(0, place), ...kept, ...lines.slice(place + before.length)]
}

function insertion(lines: string[], hint: number | null): number | string {
  if (hint === null || hint === 0 || hint >= lines.length) return 'it only adds lines and gives no context'
  return hint + 1
}

function nearest(places: number[], hint: number): number {
  return places.reduce((best, place) => (Math.abs(place - hint) < Math.abs(best - hint) ? place : best))
}
