import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { expect, it } from 'vitest'
import { cannotWrite, writeAtomically } from '../../src/effects/files.ts'
import { readLines } from '../../src/effects/lines.ts'
import { EnvironmentError } from '../../src/errors.ts'
import { tempFolder } from './temp.ts'

it('replaces a file whole and leaves nothing else behind, even when it cannot', async () => {
  const folder = tempFolder()
  await writeAtomically(join(folder, 'plan.json'), 'one')
  await writeAtomically(join(folder, 'plan.json'), 'two ü')
  expect(readFileSync(join(folder, 'plan.json'), 'utf8')).toBe('two ü')
  mkdirSync(join(folder, 'taken/x'), { recursive: true })
  await expect(writeAtomically(join(folder, 'taken'), 'three')).rejects.toThrow()
  expect(readdirSync(folder).sort()).toEqual(['plan.json', 'taken'])
})

it.each([
  ['ENOSPC', /the disk is full/],
  ['EROFS', /read-only; start in a folder of yours/],
  ['EACCES', /read-only/],
])('says of %s in one line what to do', (code, text) => {
  const error = cannotWrite('/night/results.tsv', Object.assign(new Error(code), { code }))
  expect(error).toBeInstanceOf(EnvironmentError)
  expect(String(error)).toMatch(text)
})

it('cuts lines wherever the chunks end, and gives up on one that does not end', async () => {
  const lines: string[] = []
  let tooLong = 0
  const stream = new PassThrough()
  readLines(
    stream,
    12,
    (line) => lines.push(line),
    () => tooLong++,
  )
  const bytes = Buffer.from('ab\n\nüü\nlast\n')
  for (const byte of bytes) stream.write(Buffer.from([byte]))
  stream.write('x'.repeat(20))
  stream.write('y\nlate\n')
  await new Promise((resolve) => setImmediate(resolve))
  expect(lines).toEqual(['ab', '', 'üü', 'last'])
  expect(tooLong).toBe(1)
})
