/** The sweep with the real judge: a setting that would be fastest by leaving work out does not even get a time. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { settingsAround, settingsOf } from '../../src/core/sweep.ts'
import { Judge } from '../../src/effects/judge.ts'
import { withFiles } from '../../src/effects/temporary.ts'
import type { World } from '../../src/ports.ts'
import { sweep } from '../../src/sweep.ts'
import { device, proposal, sha, target } from '../support/make.ts'
import { request } from '../support/request.ts'
import { scratchFolder } from '../support/scratch.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

/** DO says what becomes of the second half of the rows. */
const KERNEL = `import torch
KERNEL_TYPE = "softmax"
BACKEND = "cpp"
DO = "all"  # tune: "all" "half" "raise" "twice"


def kernel_fn(x):
    if DO == "raise":
        raise RuntimeError("this setting does not run")
    rows = x.shape[0] // 2 if DO == "half" else x.shape[0]
    y = torch.empty_like(x)
    for _ in range(2 if DO == "twice" else 1):
        y[:rows] = torch.softmax(x[:rows], dim=-1)
    return y
`

it('gives times to those that run and are right alone, and leaves the wrong and the crashing ones out', { timeout: 180_000 }, async () => {
  const folder = await scratchFolder()
  const incumbent = join(folder, 'incumbent.py')
  writeFileSync(incumbent, KERNEL)
  const python = join(ROOT, '.venv/bin/python')
  const log = join(folder, 'judge.log')
  const judge = new Judge({ python, script: join(ROOT, 'bench/bench.py'), device: 'cpu', sandbox: 'auto', allowTf32: false, log })
  const world: Pick<World, 'evaluator' | 'fileOf' | 'withFiles'> = {
    evaluator: judge,
    fileOf: async () => incumbent,
    withFiles: (texts, use) => withFiles(folder, texts, use),
  }
  const idea = { ...proposal('softmax', KERNEL), sweep: settingsAround(KERNEL, 'idea', request({ sweep: 9 })) }
  const about = { ...target('softmax'), shapes: [{ shape: [64, 256], options: {}, weight: 1, calls: 1 }] }
  try {
    const effect = { type: 'sweep' as const, number: 1, proposal: idea, parent: sha(1), target: about, bytes: 1e5, budgetMs: 120_000 }
    const quick = await sweep(world, effect, device, new AbortController().signal)
    const of = Object.fromEntries(settingsOf(idea).map((source, i) => [/^DO = "(\w+)"/m.exec(source)?.[1], quick[i]]))
    expect(of.half).toMatchObject({ gain: null, detail: expect.stringMatching(/^wrong: /) })
    expect(of.raise).toMatchObject({ gain: null, detail: expect.stringMatching(/^crash: .*does not run/s) })
    expect(of.all?.gain).toBeGreaterThan(0)
    expect(of.twice?.gain).toBeGreaterThan(0)
  } finally {
    await judge.close()
  }
})
