/** What counts as the same program. */
import { describe, expect, it } from 'vitest'
import { normalize, normalizedHash } from '../../src/core/source-hash.ts'

const BASE = `def f(x):
    if x:
        return g(x, "a # b")
    return 0
`

describe('sources that are the same program have one hash:', () => {
  it.each([
    ['a comment more', `${BASE}# the end\n`],
    ['a comment behind code', BASE.replace('if x:', 'if x:  # why')],
    ['blank lines and trailing space', BASE.replace('    return 0', '\n   \n    return 0   ')],
    ['CRLF line ends', BASE.replaceAll('\n', '\r\n')],
    ['two-column indentation', BASE.replaceAll('    ', '  ')],
    ['a tab for an indent', BASE.replaceAll('    ', '\t')],
    ['a docstring', BASE.replace('    if', '    """What it does."""\n    if')],
    ['a docstring of the module', `'''One.\n\nTwo # three.'''\n${BASE}`],
    ['other blanks between tokens', BASE.replace('g(x, "a # b")', 'g( x,"a # b" )')],
    ['a call over several lines', BASE.replace('g(x, "a # b")', 'g(\n  x,  # first\n"a # b")')],
    ['a line joined by a backslash', BASE.replace('return g', 'return \\\n  g')],
    ['a byte order mark', `\uFEFF${BASE}`],
    ['no newline at the end', BASE.trimEnd()],
  ])('%s', (_, source) => {
    expect(source).not.toBe(BASE)
    expect(normalizedHash(source)).toBe(normalizedHash(BASE))
  })
})

describe('sources that differ have different hashes:', () => {
  it.each([
    ['a # inside a string', BASE.replace('a # b', 'a # c')],
    ['blanks inside a string', BASE.replace('a # b', 'a  # b')],
    ['a name', BASE.replace('g(x', 'h(x')],
    ['a number', BASE.replace('return 0', 'return 1')],
    ['the nesting', BASE.replace('    return 0', '        return 0')],
    ['a string that is used', BASE.replace('return 0', 'return "0"')],
    ['an f-string that stands alone, since it calls', BASE.replace('    return 0', '    f"{g(x)}"\n    return 0')],
  ])('%s', (_, source) => {
    expect(normalizedHash(source)).not.toBe(normalizedHash(BASE))
  })
})

it('counts C++ inside a string to the last character, its preprocessor lines too', () => {
  const cpp = (line: string): string => `SOURCE = r"""\n#include <immintrin.h>\n${line}\n"""\nLIB = compile_cpp(SOURCE)\n`
  expect(normalizedHash(cpp('#define W 8'))).not.toBe(normalizedHash(cpp('#define W 16')))
  expect(normalize(cpp('#define W 8'))).toContain('#include <immintrin.h>\n#define W 8')
})

it('keeps quotes of every kind apart from comments', () => {
  const source = 'a = \'#\' + "\\"#" + rb\'#\' + f"{d["#"]}{{#" + """\'#"""  # gone\nb = 1'
  expect(normalize(source)).toBe('0 a = \'#\' + "\\"#" + rb\'#\' + f"{d["#"]}{{#" + """\'#"""\n0 b = 1')
})

it('reads a string as a word boundary, not as part of a name', () => {
  expect(normalize('x = 1 if"a"else 2')).toBe('0 x = 1 if "a" else 2')
})

it.each([
  ['an unclosed string', `x = """${'a'.repeat(200_000)}`],
  ['open braces in an f-string', `x = f"""${'{ '.repeat(100_000)}`],
  ['nested f-strings', 'f"{'.repeat(60_000)],
  ['brackets without end', '('.repeat(200_000)],
])('hashes 200 kB of hostile text (%s) in linear time', (_, source) => {
  const start = performance.now()
  expect(normalizedHash(source)).toMatch(/^[0-9a-f]{64}$/)
  expect(performance.now() - start).toBeLessThan(3000)
})
