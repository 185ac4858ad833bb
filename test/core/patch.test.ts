/** A model's words -> a kernel, or a reason that helps it do better. */
import { describe, expect, it } from 'vitest'
import { parseAnswer } from '../../src/core/patch.ts'
import { KERNEL } from '../support/request.ts'

const FASTER = KERNEL.replace('BLOCK = 1024 ', 'BLOCK = 2048 ').replace('eps=1e-6):', 'eps=1e-5):')
const whole = (code: string, language = 'python'): string => `\`\`\`${language}\n${code}\`\`\``
const DIFF = `--- a/kernel.py
+++ b/kernel.py
@@ -6,4 +6,4 @@
 KERNEL_TYPE = "rmsnorm"
 BACKEND = "triton"
-BLOCK = 1024  # tune: 256 512 1024 2048 4096
+BLOCK = 2048  # tune: 256 512 1024 2048 4096
 NUM_WARPS = 4  # tune: 2 4 8
@@ -21,3 +21,3 @@
 
-def kernel_fn(x, weight, eps=1e-6):
+def kernel_fn(x, weight, eps=1e-5):
     y = torch.empty_like(x)
`
const SEARCH = `<<<<<<< SEARCH
BLOCK = 1024  # tune: 256 512 1024 2048 4096
=======
BLOCK = 2048  # tune: 256 512 1024 2048 4096
>>>>>>> REPLACE
<<<<<<< SEARCH
def kernel_fn(x, weight, eps=1e-6):
=======
def kernel_fn(x, weight, eps=1e-5):
>>>>>>> REPLACE
`

function source(answer: string, incumbent = KERNEL): string {
  const parsed = parseAnswer(answer, incumbent)
  if (!parsed.ok) throw new Error(parsed.why)
  return parsed.source
}

function refusal(answer: string): string {
  const parsed = parseAnswer(answer, KERNEL)
  return parsed.ok ? 'accepted' : parsed.why
}

describe('takes the new kernel.py from', () => {
  it.each([
    ['a python block', whole(FASTER)],
    ['a block marked py', whole(FASTER, 'py')],
    ['a block without a language that defines kernel_fn', whole(FASTER, '')],
    ['a block named kernel.py', whole(FASTER, 'python kernel.py')],
    ['a block behind tildes', `~~~python\n${FASTER}~~~`],
    ['a block with CRLF line ends', whole(FASTER).replaceAll('\n', '\r\n')],
    ['a block beside a shell line and an excerpt of C++', `${whole('nvcc -O3\n', 'bash')}\n${whole('int x;\n', 'cpp')}\n${whole(FASTER)}`],
    ['a unified diff', whole(DIFF, 'diff')],
    ['a diff without a language', whole(DIFF, '')],
    ['a diff that names the whole path', whole(DIFF.replaceAll('/kernel.py', '/optimized/rmsnorm/kernel.py'), 'diff')],
    ['a diff with wrong line numbers', whole(DIFF.replace('-6,4 +6,4', '-90,4 +90,4').replace('-21,3', '-3,3'), 'diff')],
    ['a diff with no line numbers', whole(DIFF.replaceAll(/@@ .* @@/g, '@@'), 'diff')],
    ['a diff whose empty context line lost its blank', whole(DIFF.replace('\n \n', '\n\n'), 'diff')],
    ['a diff with an empty line at its end', whole(`${DIFF}\n`, 'diff')],
    ['a diff with blanks at a line end', whole(DIFF.replace('"triton"\n', '"triton"  \n'), 'diff')],
    ['search/replace blocks', whole(SEARCH, '')],
    [
      'search/replace in two fences',
      SEARCH.split(/(?<=REPLACE\n)/)
        .map((part) => whole(part, 'python'))
        .join('\n'),
    ],
    ['search/replace without a fence', SEARCH],
  ])('%s', (_, answer) => {
    expect(source(`HYPOTHESIS: wider\n\n${answer}\n`).trimEnd()).toContain(FASTER.trimEnd().slice(60))
  })
})

it('applies a diff to the nearest of two places that look alike', () => {
  const twice = `${KERNEL}\n\ndef a():\n    return 1\n\n\ndef b():\n    return 1\n`
  const at = (line: number): string => whole(`@@ -${line},1 +${line},1 @@\n-    return 1\n+    return 2\n`, 'diff')
  const lines = twice.split('\n').length
  expect(source(at(lines), twice)).toContain('def a():\n    return 1\n\n\ndef b():\n    return 2')
  expect(source(at(lines - 6), twice)).toContain('def a():\n    return 2\n\n\ndef b():\n    return 1')
})

it.each<[string, string, RegExp]>([
  ['there is no code', 'HYPOTHESIS: x\n\nTrust me.', /no code block/],
  ['there are two files in it', `${whole(FASTER)}\n${whole(KERNEL)}`, /2 code blocks; exactly one/],
  ['a diff and a file are in it', `${whole(DIFF, 'diff')}\n${whole(FASTER)}`, /2 code blocks/],
  [
    'a diff names another file',
    whole(DIFF.replaceAll('kernel.py', 'bench/timing.py'), 'diff'),
    /edits other files than kernel.py: bench\/timing.py/,
  ],
  [
    'a diff names kernel.py and another file',
    whole(`${DIFF}--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n`, 'diff'),
    /other files.*: x\.py/,
  ],
  ['a path outside is named', whole(DIFF.replaceAll('b/kernel.py', '../../etc/passwd'), 'diff'), /other files/],
  ['search/replace names another file', whole(`bench/op.py\n${SEARCH}`, ''), /other files.*bench\/op\.py/],
  ['a diff finds its line nowhere', whole(DIFF.replace('-BLOCK = 1024', '-BLOCK = 999'), 'diff'), /hunk 1 of 2 .*no line 'BLOCK = 999/],
  ['a diff without numbers fits two places', whole('@@\n \n+# here\n', 'diff'), /places; give more context/],
  ['a diff only adds and gives no place', whole('@@\n+x = 1\n', 'diff'), /gives no context/],
  ['a diff has no hunk', whole('--- a/kernel.py\n+++ b/kernel.py\n', 'diff'), /no hunk/],
  ['SEARCH is empty', '<<<<<<< SEARCH\n=======\nx\n>>>>>>> REPLACE', /SEARCH part is empty/],
  ['SEARCH never ends', whole('<<<<<<< SEARCH\nBLOCK = 1024\n', ''), /without its =======/],
  ['it is the incumbent', whole(KERNEL), /identical to the incumbent/],
  ['only a comment differs', whole(KERNEL.replace('# tune: 2 4 8', '# tune: 2 4')), /identical to the incumbent/],
  ['kernel_fn is only in a string', whole('S = """\ndef kernel_fn(x):\n"""\n'), /kernel_fn at module level/],
  ['kernel_fn is inside a class', whole('class A:\n    def kernel_fn(x):\n        return x\n'), /kernel_fn at module level/],
  ['there is a NUL byte', whole(`${FASTER}\n#\0\n`), /NUL/],
  ['it is not UTF-8', whole(`${FASTER}\n# \uD800\n`), /UTF-8/],
])('refuses and says why when %s', (_, answer, why) => {
  expect(refusal(`HYPOTHESIS: x\n\n${answer}\n`)).toMatch(why)
})

it.each([
  ['HYPOTHESIS: one pass', 'one pass'],
  ['**Hypothesis:** `one` pass\nmore', 'one pass'],
  ['## Hypothesis\n\none pass', 'one pass'],
  ['I think one pass\u0007\twill do.\nPREDICTED: 1.1', 'I think one pass will do.'],
  [`HYPOTHESIS: ${'long '.repeat(200)}`, `${'long '.repeat(60).slice(0, 299).trimEnd()}\u2026`],
  ['PREDICTED: 1.1', 'no hypothesis given'],
])('reads the hypothesis as one line of plain words: %j', (text, hypothesis) => {
  expect(parseAnswer(`${text}\n\n${whole(FASTER)}`, KERNEL)).toMatchObject({ ok: true, hypothesis })
})

it.each([
  ['PREDICTED: 1.08', 1.08],
  ['**Predicted gain:** 1.2x', 1.2],
  ['Predicted: +5%', 1.05],
  ['predicted speedup is about 12.5 %', 1.125],
  ['PREDICTED: 900', null],
  ['no idea', null],
])('reads the predicted gain: %s', (text, predictedGain) => {
  expect(parseAnswer(`HYPOTHESIS: x\n${text}\n${whole(FASTER)}`, KERNEL).predictedGain).toBe(predictedGain)
})

it.each([
  ['newlines', '\n'.repeat(1_900_000)],
  ['open SEARCH lines', '<<<<<<< SEARCH\n'.repeat(100_000)],
  ['a fence with blanks', `\`\`\`${' '.repeat(1_000_000)}x`],
  ['one long word', `\`\`\`${'a'.repeat(1_000_000)}\n${'a.'.repeat(400_000)}\n<<<<<<< SEARCH`],
  ['@@ lines', whole('@@ -1 +1 @@\n-a\n+b\n'.repeat(50_000), 'diff')],
])('answers two million characters of %s in under two seconds', (_, text) => {
  const start = performance.now()
  expect(parseAnswer(text, KERNEL).ok).toBe(false)
  expect(performance.now() - start).toBeLessThan(2000)
})
