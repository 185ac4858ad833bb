/** A model's answer -> the new kernel.py, or why it cannot be used, in words the model can act on. */
import { applyDiff, applySearchReplace, type Patched } from './diff.ts'
import { tokenize } from './python-tokens.ts'
import { normalizedHash } from './source-hash.ts'

export type Parsed = { hypothesis: string; predictedGain: number | null } & Patched

export const MAX_SOURCE_BYTES = 256 * 1024
const MAX_ANSWER = 2_000_000
const MAX_PROSE = 20_000 // where hypothesis and prediction stand
const MAX_HYPOTHESIS = 300
export const NO_HYPOTHESIS = 'no hypothesis given'

type Block = { info: string; text: string }
type Edit = { kind: 'whole' | 'diff' | 'search-replace'; text: string }

/** Exactly one edit of exactly one file: a whole ```python block, a unified diff, or search/replace blocks. */
export function parseAnswer(answer: string, incumbent: string): Parsed {
  if (answer.length > MAX_ANSWER)
    return { hypothesis: 'none: the answer is too long', predictedGain: null, ok: false, why: tooLong(answer) }
  const { blocks, prose } = splitFences(answer)
  const said = { hypothesis: hypothesisIn(prose), predictedGain: gainIn(prose) }
  const found = findEdit(blocks, answer)
  if ('why' in found) return { ...said, ok: false, why: found.why }
  const patched = applyEdit(found, incumbent)
  if (!patched.ok) return { ...said, ...patched }
  const why = unusable(patched.source, incumbent)
  return why === null ? { ...said, ...patched } : { ...said, ok: false, why }
}

/** Why a source cannot be a candidate, or null. Correctness is the judge's business; this is only what needs no judge. */
export function unusable(source: string, incumbent: string): string | null {
  if (Buffer.byteLength(source) > MAX_SOURCE_BYTES) return `kernel.py would have ${Buffer.byteLength(source)} bytes; at most 256 KiB`
  if (/\p{Surrogate}/u.test(source) || (source.includes('\uFFFD') && !incumbent.includes('\uFFFD')))
    return 'kernel.py would not be valid UTF-8'
  if (source.includes('\0')) return 'kernel.py would hold a NUL byte'
  if (!definesKernelFn(source)) return 'kernel.py would not define kernel_fn at module level'
  if (normalizedHash(source) === normalizedHash(incumbent)) return 'identical to the incumbent but for layout and comments'
  return null
}

const tooLong = (answer: string): string =>
  `an answer of ${Math.round(answer.length / 1e5) / 10} million characters; one kernel.py has at most 256 KiB`

/** One line of plain words for the ledger and the commit message. */
export function oneLine(text: string, limit: number): string {
  const line = text.replace(/[\p{Cc}\p{Cf}\p{Surrogate}\s]+/gu, ' ').trim()
  return line.length <= limit ? line : `${line.slice(0, limit - 1).trimEnd()}\u2026`
}

function applyEdit(edit: Edit, incumbent: string): Patched {
  if (edit.kind === 'whole') return { ok: true, source: edit.text }
  return edit.kind === 'diff' ? applyDiff(incumbent, edit.text) : applySearchReplace(incumbent, edit.text)
}

function findEdit(blocks: Block[], answer: string): Edit | { why: string } {
  const edits = blocks.map(classify).filter((edit) => edit !== null)
  const foreign = [...new Set(edits.flatMap(({ files }) => files).filter((file) => !/^(.*\/)?kernel\.py$/.test(file)))]
  if (foreign.length > 0) return { why: `edits other files than kernel.py: ${oneLine(foreign.join(', '), 200)}` }
  const [first, ...more] = edits
  if (!first) return /^<{5,} ?SEARCH/m.test(answer) ? { kind: 'search-replace', text: answer } : { why: 'no code block in the answer' }
  if (edits.every(({ kind }) => kind === 'search-replace'))
    return { kind: 'search-replace', text: edits.map(({ text }) => text).join('\n') }
  if (more.length > 0) return { why: `${edits.length} code blocks; exactly one must hold the change` }
  return first
}

/** What a block changes and in which files, or null for one that is only an illustration (a shell line, an excerpt of C++, a table). */
function classify({ info, text }: Block): (Edit & { files: string[] }) | null {
  const language = info.split(/[\s:{]/)[0]?.toLowerCase() ?? ''
  const named = [...info.matchAll(/[\w./-]+\.\w+/g)].map(([file]) => file)
  if (/^<{5,} ?SEARCH/m.test(text)) {
    const above = [...text.matchAll(/^([\w./-]+\.\w+)\n<{5,} ?SEARCH/gm)].map(([, file]) => file ?? '')
    return { kind: 'search-replace', text, files: [...named, ...above] }
  }
  if (language === 'diff' || language === 'patch' || /^(--- .*\n\+\+\+ |@@ )/m.test(text)) {
    const paths = [...text.matchAll(/^(?:--- |\+\+\+ |rename to |diff --git )(.*)$/gm)].flatMap(([, path]) => (path ?? '').split(/\s+/))
    const files = paths.map((path) => path.replace(/^[ab]\//, '')).filter((path) => /[./]/.test(path) && path !== '/dev/null')
    return { kind: 'diff', text, files: files.filter((path) => !/^\d/.test(path)) }
  }
  const python = language === 'python' || language === 'py' || (language === '' && /^def kernel_fn\b/m.test(text))
  return python ? { kind: 'whole', text, files: named } : null
}

/** Fenced blocks and what stands between them, line by line: a fence is closed by one at least as long. */
function splitFences(answer: string): { blocks: Block[]; prose: string } {
  const blocks: Block[] = []
  const prose: string[] = []
  let open: { mark: string; info: string; lines: string[] } | null = null
  for (const line of answer.replaceAll('\r\n', '\n').split('\n')) {
    const fence = /^ {0,3}(`{3,}|~{3,})(.*)$/.exec(line)
    if (open === null && fence) open = { mark: fence[1] ?? '', info: (fence[2] ?? '').trim().slice(0, 200), lines: [] }
    else if (open === null) prose.push(line)
    else if (fence?.[1]?.startsWith(open.mark) && fence[2]?.trim() === '') {
      blocks.push({ info: open.info, text: `${open.lines.join('\n')}\n` })
      open = null
    } else open.lines.push(line)
  }
  return { blocks, prose: prose.join('\n').slice(0, MAX_PROSE) } // a block that never ends was cut off: no block
}

function hypothesisIn(prose: string): string {
  const lines = prose.split('\n').map((line) => oneLine(line.replace(/[*_`#]{1,3}/g, ''), MAX_PROSE))
  const at = lines.findIndex((line) => /^\W{0,4}hypothesis\b/i.test(line))
  const labelled = at < 0 ? '' : (lines[at] ?? '').replace(/^\W{0,4}hypothesis\W*/i, '') || (lines.slice(at + 1).find(Boolean) ?? '')
  const first = lines.find((line) => /\w{3}/.test(line) && !/^\W{0,4}predicted/i.test(line))
  return oneLine(labelled || first || NO_HYPOTHESIS, MAX_HYPOTHESIS)
}

/** "1.05", "1.05x" and "5 %" all mean five per cent faster. */
function gainIn(prose: string): number | null {
  const [, number, unit] = /^[^\w\n]{0,4}predicted[^\d\n]{0,40}(\d{1,4}(?:\.\d+)?)\s?(%?)/im.exec(prose) ?? []
  if (number === undefined) return null
  const gain = unit === '%' ? 1 + Number(number) / 100 : Number(number)
  return gain >= 0.5 && gain <= 100 ? gain : null
}

function definesKernelFn(source: string): boolean {
  const tokens = tokenize(source).filter(({ kind }) => kind !== 'comment')
  return tokens.some((token, i) => {
    if (token.kind !== 'line' || token.indent !== 0) return false
    const [first, second] = tokens.slice(i + 1, i + 3).map((next) => (next.kind === 'line' ? '' : next.text))
    return (first === 'def' && second === 'kernel_fn') || (first === 'kernel_fn' && (second === '=' || second === ':'))
  })
}
