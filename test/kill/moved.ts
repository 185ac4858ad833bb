/** Somebody moves the run's branch while the run is at work. */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'vitest'
import { RUN, Scene } from './scene.ts'
import type { Stage } from './stage.ts'

export async function expectMovedBranchLeft(stage: Stage, program?: string): Promise<void> {
  const scene = new Scene(stage, program)
  const git = (...args: string[]) => execFileSync('git', ['-C', scene.folder, ...args], { encoding: 'utf8' }).trim()
  let moved: Promise<void> = Promise.resolve()
  const ended = await scene.start(null, () => {
    moved = firstCandidate(scene).then(() => void git('update-ref', `refs/heads/autokernel/${RUN}`, 'main'))
  })
  await moved
  expect(ended.output).toMatch(/branch autokernel\/night: expected [0-9a-f]{12,40}, found [0-9a-f]{12,40}; somebody else moved it/)
  expect(ended.code).not.toBe(0)
  expect(git('rev-parse', `autokernel/${RUN}`)).toBe(git('rev-parse', 'main'))

  const again = await scene.start(null)
  expect(again.output).toMatch(/branch autokernel\/night: expected it to end at [0-9a-f]{12}, found .*; to put it back: git update-ref /)
  expect(again.code).toBe(2)
  expect(git('rev-parse', `autokernel/${RUN}`)).toBe(git('rev-parse', 'main'))
  scene.remove()
}

async function firstCandidate({ journal }: Scene): Promise<void> {
  while (!existsSync(journal) || !readFileSync(journal, 'utf8').includes('"type":"committed"')) await sleep(2)
}
