/** Is this the same program as one already judged? A hash over what Python would run: layout, comments and docstrings do not count. */
import { createHash } from 'node:crypto'
import type { Proposal } from '../types.ts'
import { type Token, tokenize } from './python-tokens.ts'

/** sha256 in hex of the normalized source. C++ or CUDA inside a string counts to the last character. */
export function normalizedHash(source: string): string {
  return createHash('sha256').update(normalize(source)).digest('hex')
}

/** The hash of what the author of an idea wrote, by which he knows it, whatever a sweep made of its constants. */
export const writtenHash = ({ source, written }: Pick<Proposal, 'source' | 'written'>): string =>
  source === '' ? '' : normalizedHash(written ?? source)

/** One logical line a line, tokens one blank apart, nesting as a count: the same for every layout of the same program. */
export function normalize(source: string): string {
  const lines: { indent: number; tokens: Token[] }[] = []
  for (const token of tokenize(source)) {
    if (token.kind === 'line') lines.push({ indent: token.indent, tokens: [] })
    else if (token.kind !== 'comment') lines.at(-1)?.tokens.push(token)
  }
  const nesting = [0]
  const normalized: string[] = []
  for (const { indent, tokens } of lines) {
    if (tokens.every(isPlainString)) continue // a docstring, or a string that nothing reads
    while (indent < (nesting.at(-1) ?? 0)) nesting.pop()
    if (indent > (nesting.at(-1) ?? 0)) nesting.push(indent)
    normalized.push(`${nesting.length - 1} ${normalizeTokens(tokens)}`)
  }
  return normalized.join('\n')
}

/** A constant's value the way it stands in a normalized line. */
export const normalizeExpression = (text: string): string => normalizeTokens(tokenize(text))

function normalizeTokens(tokens: Token[]): string {
  return tokens
    .map((token) => ('text' in token && token.kind !== 'comment' ? token.text : ''))
    .filter(Boolean)
    .join(' ')
}

const isPlainString = (token: Token): boolean => token.kind === 'string' && !/^[a-z]*[ft]/i.test(token.text)
