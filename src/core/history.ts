/** Every idea tried, in a bounded space: recent and best in full lines, older ones grouped, each still there to be read. */
import type { Attempt } from '../types.ts'
import { inShort } from './evidence.ts'
import { oneLine } from './patch.ts'

const RECENT = 20
const BEST = 10
/** Characters an older idea may have; the widest that fits is taken, so space is spent as long as there is some. */
const WIDTHS = [160, 120, 90, 70, 55, 40, 28]

export function history(attempts: Attempt[], maxChars: number): string {
  const all = attempts.map(fullLine).join('\n')
  if (attempts.length <= RECENT + BEST && all.length <= maxChars) return `${HEADER}\n${all}`

  const shown = new Set([...attempts.slice(-RECENT), ...best(attempts)])
  const full = attempts.filter((attempt) => shown.has(attempt)).map(fullLine)
  const older = attempts.filter((attempt) => !shown.has(attempt))
  const head = `${HEADER}\n${full.join('\n')}`
  const room = maxChars - head.length
  for (const width of WIDTHS) {
    const text = grouped(older, width)
    if (text.length <= room) return `${text}\n\n${head}`
  }
  return `${fitting(grouped(older, WIDTHS.at(-1) ?? 0), room)}\n\n${head}`
}

const HEADER = 'experiment | outcome | gain (above 1 is faster) | predicted | by | idea | why not; what was seen'

function fullLine(attempt: Attempt): string {
  const { experiment, outcome, gain, predictedGain, agent, hypothesis, detail } = attempt
  const fields = [`#${experiment}`, outcome, factor(gain), factor(predictedGain), agent, oneLine(hypothesis, 300)]
  const why = [detail, inShort(attempt)].filter((text) => text !== '').map((text) => oneLine(text, 300))
  return [...fields, ...(why.length > 0 ? [why.join('; ')] : [])].map((field) => field.replaceAll('|', '/')).join(' | ')
}

function best(attempts: Attempt[]): Attempt[] {
  return attempts
    .filter(({ outcome }) => outcome === 'keep')
    .sort((a, b) => (b.gain ?? 0) - (a.gain ?? 0))
    .slice(0, BEST)
}

/** One line an idea: its words once, then what became of it each time. Settings of one constant are one idea. */
function grouped(attempts: Attempt[], width: number): string {
  const groups = new Map<string, { idea: string; results: string[] }>()
  for (const attempt of attempts) {
    const setting = /^((\w+) \S+ -> (\S+)(?:, \w+ \S+ -> \S+)*):/.exec(attempt.hypothesis)
    const names = setting?.[1]?.split(', ').map((change) => change.split(' ')) ?? []
    const idea = setting ? names.map(([name]) => name).join(' x ') : oneLine(attempt.hypothesis, width)
    const key = setting ? idea : sameIdea(attempt.hypothesis)
    const group = groups.get(key) ?? { idea, results: [] }
    const value = setting ? `${names.map((change) => change.at(-1)).join('/')}: ` : ''
    group.results.push(
      `${value}${attempt.gain === null ? attempt.outcome : factor(attempt.gain)}${attempt.outcome === 'keep' ? ' kept' : ''}`,
    )
    groups.set(key, group)
  }
  const lines = [...groups.values()].map(({ idea, results }) => `${idea.replaceAll('|', '/')} | ${results.join(', ')}`)
  return ['Older ideas, one a line, and the gain or outcome of each try:', ...lines].join('\n')
}

/** The same for the same idea in other letters or punctuation; a number may be the idea. What a sweep or a repair added is none. */
export const sameIdea = (text: string): string =>
  text
    .replace(/^(repair of #\d+: )+/, '')
    .replace(/ \(swept: [^()]*\)$/, '')
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, ' ')
    .trim()

/** The newest lines that fit; the count of the others is said. Only thousands of different ideas come here. */
function fitting(text: string, room: number): string {
  const lines = text.split('\n')
  let left = Math.max(0, room - 80)
  let first = lines.length
  while (first > 1 && (lines[first - 1]?.length ?? 0) + 1 <= left) left -= (lines[--first]?.length ?? 0) + 1
  return [`${first - 1} oldest ideas do not fit here. Older ideas, one a line:`, ...lines.slice(first)].join('\n')
}

const factor = (value: number | null): string => (value === null ? '-' : value.toFixed(value < 10 ? 3 : 1))
