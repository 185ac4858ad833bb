/** Python source as tokens: just enough lexing to tell code from comments and strings, in one linear pass. */

export type Token =
  | { kind: 'word' | 'operator' | 'string'; text: string; at: number }
  | { kind: 'comment'; text: string; at: number }
  | { kind: 'line'; indent: number; at: number } // a logical line starts here, indented by this many columns

const WORD = /[\p{L}\p{N}_.]+/uy
const BLANK = /[ \t\f]*/y
const COMMENT = /#[^\n]*/y
const STRING_START = /(?:[rbfut]|[rR][bBfFtT]|[bBfFtT][rR]|[RBFUT])?('''|"""|'|")/y
const MAX_NESTING = 8
const OPEN = '([{'
const CLOSE = ')]}'

/** Never fails: what is not Python comes out as operators, and an unclosed string runs to the end of its line or of the text. */
export function tokenize(source: string): Token[] {
  const text = source.replaceAll('\r\n', '\n').replaceAll('\r', '\n')
  const tokens: Token[] = []
  let at = text.startsWith('\uFEFF') ? 1 : 0
  let depth = 0
  let fresh = true // before the first token of a logical line

  while (at < text.length) {
    const blank = match(BLANK, text, at)
    const indent = fresh && depth === 0 ? columns(blank) : 0
    at += blank.length
    const char = text[at]
    if (char === undefined) break
    if (char === '\n') {
      if (depth === 0) fresh = true
      at += 1
    } else if (char === '\\' && text[at + 1] === '\n') {
      at += 2
    } else if (char === '#') {
      const comment = match(COMMENT, text, at)
      tokens.push({ kind: 'comment', text: comment, at })
      at += comment.length
    } else {
      if (fresh && depth === 0) tokens.push({ kind: 'line', indent, at })
      fresh = false
      const end = stringEnd(text, at)
      const word = end === null ? match(WORD, text, at) : ''
      if (end !== null) tokens.push({ kind: 'string', text: text.slice(at, end), at })
      else tokens.push(word ? { kind: 'word', text: word, at } : { kind: 'operator', text: char, at })
      if (end === null && OPEN.includes(char)) depth += 1
      if (end === null && CLOSE.includes(char)) depth = Math.max(0, depth - 1)
      at = end ?? at + (word.length || 1)
    }
  }
  return tokens
}

/** Where the string literal that starts at `at` ends, or null when none starts there. */
function stringEnd(text: string, at: number, nesting = 0): number | null {
  STRING_START.lastIndex = at
  const start = STRING_START.exec(text)
  if (!start) return null
  const quote = start[1] ?? '"'
  // Since Python 3.12 a field may hold the same quotes again. Beyond a few levels nobody writes it, and hostile text could exhaust our stack.
  const fields = nesting < MAX_NESTING && /[fFtT]/.test(start[0].slice(0, -quote.length))
  let i = at + start[0].length
  while (i < text.length) {
    const char = text[i]
    if (char === '\\') i += 2
    else if (text.startsWith(quote, i)) return i + quote.length
    else if (char === '\n' && quote.length === 1) return i
    else if (fields && char === '{') i = text[i + 1] === '{' ? i + 2 : fieldEnd(text, i + 1, quote, nesting + 1)
    else i += 1
  }
  return text.length
}

/** The end of an f-string's replacement field; an unclosed one runs as far as its string may. */
function fieldEnd(text: string, from: number, quote: string, nesting: number): number {
  let depth = 1
  for (let i = from; i < text.length; ) {
    const char = text[i]
    if (char === '{') depth += 1
    if (char === '}') depth -= 1
    if (depth === 0) return i + 1
    if (char === '\n' && quote.length === 1) return i
    i = (char === '"' || char === "'" || /[a-z]/i.test(char ?? '') ? stringEnd(text, i, nesting) : null) ?? i + 1
  }
  return text.length
}

function columns(blank: string): number {
  let column = 0
  for (const char of blank) column = char === '\t' ? column + 8 - (column % 8) : column + 1
  return column
}

function match(pattern: RegExp, text: string, at: number): string {
  pattern.lastIndex = at
  return pattern.exec(text)?.[0] ?? ''
}
