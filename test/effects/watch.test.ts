import { renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it, onTestFinished, vi } from 'vitest'
import { watchTexts } from '../../src/effects/watch.ts'
import { tempFolder } from './temp.ts'

it('has the text of now: as found, as edited, as replaced, as it appears, and without it', async () => {
  const folder = tempFolder()
  const [playbook, steer] = [join(folder, 'program.md'), join(folder, 'steer.md')]
  writeFileSync(playbook, 'one')
  const texts = await watchTexts({ playbook, steer })
  onTestFinished(() => texts.close())
  expect([texts.playbook, texts.steer]).toEqual(['one', ''])

  writeFileSync(playbook, 'two')
  await vi.waitUntil(() => texts.playbook === 'two', { timeout: 5000 })
  writeFileSync(steer, 'try split-K')
  await vi.waitUntil(() => texts.steer === 'try split-K', { timeout: 5000 })
  writeFileSync(join(folder, 'new'), 'three') // as editors save
  renameSync(join(folder, 'new'), playbook)
  await vi.waitUntil(() => texts.playbook === 'three', { timeout: 5000 })
  rmSync(steer)
  await vi.waitUntil(() => texts.steer === '', { timeout: 5000 })
})
