import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it, onTestFinished, vi } from 'vitest'
import { dropFolder, scratchFolder, withFiles } from '../../src/effects/temporary.ts'
import { EnvironmentError } from '../../src/errors.ts'
import { tempFolder } from './temp.ts'

function temporaryFilesIn(place: string): void {
  vi.stubEnv('TMPDIR', place)
  onTestFinished(() => void vi.unstubAllEnvs())
}

it('a folder is there until it is dropped', async () => {
  const place = tempFolder()
  temporaryFilesIn(place)
  const folder = scratchFolder('test')
  writeFileSync(join(folder, 'file'), '')
  expect(readdirSync(place)).toEqual([expect.stringMatching(/^autokernel-test-/)])
  await dropFolder(folder)
  expect(existsSync(folder)).toBe(false)
})

it('is gone, and what works in it has ended, when the program exits with it in its hands', () => {
  const place = tempFolder()
  const from = (file: string) => JSON.stringify(new URL(`../../src/effects/${file}`, import.meta.url).href)
  const script = `
    import { scratchFolder, withFiles } from ${from('temporary.ts')}
    import { Served } from ${from('served.ts')}
    const folder = scratchFolder('test')
    new Served('sh', ['-c', 'while :; do mkdir -p "$PLACE/deep"; : > "$PLACE/deep/$(date +%N)"; done'], folder + '/log', { PLACE: folder })
    void withFiles(${JSON.stringify(place)}, ['text'], () => new Promise(() => {}))
    setTimeout(() => process.exit(130), 300)`
  const ended = spawnSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], {
    env: { ...process.env, TMPDIR: place },
    encoding: 'utf8',
  })
  expect(ended.status, ended.stderr).toBe(130)
  expect(readdirSync(place).filter((name) => !name.startsWith('tsx-'))).toEqual([])
})

it.each([
  ['is missing', (place: string) => join(place, 'nowhere'), 'ENOENT'],
  ['is a file', (place: string) => join(place, 'file'), 'ENOTDIR'],
])('a place for temporary files that %s is refused in one line', (_, inside, code) => {
  const place = tempFolder()
  writeFileSync(join(place, 'file'), '')
  temporaryFilesIn(inside(place))
  const expected = `${inside(place)}: expected a folder for temporary files, found ${code}; set TMPDIR to one you can write to`
  expect(() => scratchFolder('test')).toThrow(new EnvironmentError(expected))
})

it('files are gone when their use fails', async () => {
  const place = tempFolder()
  const use = withFiles(place, ['a', 'b'], async (paths) => {
    expect(paths.every((path) => existsSync(path))).toBe(true)
    throw new Error('no use')
  })
  await expect(use).rejects.toThrow('no use')
  expect(readdirSync(place)).toEqual([])
})
