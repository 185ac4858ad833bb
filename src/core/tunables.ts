/** The constants a kernel marks for the search: `BLOCK = 1024  # tune: 256 512 1024 2048`, at module level. */
import { tokenize } from './python-tokens.ts'

export type Tunable = {
  name: string
  line: number // from 0
  values: string[] // as written, each once, the current one among them
  current: number // its index in values
  ordered: boolean // numbers: a step up or down means something
}

const ASSIGNMENT = /^([A-Za-z_]\w*)(\s*(?::[^=#]+)?=\s*)(\S+)(\s*)$/
const MARK = /^#\s*tune:\s*(.*?)\s*$/

/** In order of appearance. A marked name that is assigned again later is the later line's: that is the one Python sees. */
export function findTunables(source: string): Tunable[] {
  const found = new Map<string, Tunable>()
  const text = source.replaceAll('\r\n', '\n').replaceAll('\r', '\n') // as the tokens' positions count
  for (const token of tokenize(source)) {
    if (token.kind !== 'comment') continue // in a string it is no mark
    const mark = MARK.exec(token.text)
    if (!mark) continue
    const start = text.lastIndexOf('\n', token.at - 1) + 1
    const assignment = ASSIGNMENT.exec(text.slice(start, token.at))
    if (!assignment) continue
    const [, name = '', , value = ''] = assignment
    found.delete(name)
    found.set(name, { name, line: text.slice(0, start).split('\n').length - 1, ...choices(value, mark[1] ?? '') })
  }
  return [...found.values()]
}

/** The source with those constants changed and every other byte as it was. Throws on a name that is not marked. */
export function applyTunables(source: string, values: Record<string, string>): string {
  const lines = source.split(/(?<=\r\n|\n|\r(?!\n))/)
  const tunables = new Map(findTunables(source).map((tunable) => [tunable.name, tunable]))
  for (const [name, value] of Object.entries(values)) {
    const tunable = tunables.get(name)
    if (!tunable) throw new RangeError(`${name}: not a constant marked '# tune:' in this source`)
    const text = lines[tunable.line] ?? ''
    lines[tunable.line] = text.replace(/^(\w+\s*(?::[^=#]+)?=\s*)\S+/, (_, head: string) => `${head}${value}`)
  }
  return lines.join('')
}

function choices(value: string, listed: string): Pick<Tunable, 'values' | 'current' | 'ordered'> {
  const values: string[] = []
  for (const text of listed.split(/\s+/).filter(Boolean)) if (!values.some((known) => same(known, text))) values.push(text)
  const all = [value, ...values]
  const ordered = all.every((text) => number(text) !== null)
  if (ordered) values.sort((a, b) => (number(a) ?? 0) - (number(b) ?? 0))
  if (!values.some((known) => same(known, value))) {
    const place = ordered ? values.findIndex((known) => (number(known) ?? 0) > (number(value) ?? 0)) : 0
    values.splice(place < 0 ? values.length : place, 0, value)
  }
  return { values, current: values.findIndex((known) => same(known, value)), ordered }
}

const same = (a: string, b: string): boolean => a === b || (number(a) !== null && number(a) === number(b)) || unquote(a) === unquote(b)
const unquote = (text: string): string => (/^(['"]).*\1$/.test(text) ? `'${text.slice(1, -1)}'` : text)

function number(text: string): number | null {
  const plain = text.replaceAll('_', '')
  return /^(-?\d+(\.\d*)?(e[+-]?\d+)?|0x[0-9a-f]+)$/i.test(plain) ? Number(plain) : null
}
