import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, expect, it, vi } from 'vitest'
import { World } from '../support/world.ts'

const MINUTES = 60_000
const world = World.repository('models/tiny_rmsnorm.py')
let daemon = 0
afterAll(() => {
  if (parentOf(String(daemon)) > 0) process.kill(daemon, 'SIGKILL')
  world.remove()
})
const run = join(world.folder, '.autokernel', 'runs', 'night')
const patience = { timeout: 8 * MINUTES, interval: 3000 } // looking costs what the judge would need

/** Its judge, the judge's zygote, keepers and candidates. */
function descendants(pid: number): number[] {
  const children = readdirSync('/proc').filter((name) => /^\d+$/.test(name) && parentOf(name) === pid)
  return children.flatMap((child) => [Number(child), ...descendants(Number(child))])
}

function parentOf(pid: string): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
  } catch {
    return 0 // ended meanwhile
  }
}

it(
  'a run with the real judge, in the background: pause leaves no process but the daemon, resume measures on, stop verifies and ends',
  async () => {
    const flags = ['--model', 'tiny_rmsnorm.py', '--run', 'night', '--agent', 'search', '--device', 'cpu', '--hours', '1']
    const { pid } = JSON.parse((await world.autokernel('optimize', ...flags, '--detach', '--json')).stdout)
    const status = async () => JSON.parse((await world.autokernel('status', '--json')).stdout)
    await vi.waitFor(async () => expect((await status()).doing).toMatch(/baselines|checking|timing/), patience)
    daemon = pid
    expect(descendants(pid).length).toBeGreaterThan(1)

    expect(await world.autokernel('pause')).toMatchObject({ code: 0 })
    await vi.waitFor(() => expect(descendants(pid)).toEqual([]), { timeout: 5000, interval: 100 })
    const { experiments, elapsed_s, phase } = await status()
    expect(phase).toBe(`paused (pid ${pid})`)
    await new Promise((resolve) => setTimeout(resolve, 2500))
    expect(await status()).toMatchObject({ experiments, elapsed_s })
    expect(descendants(pid)).toEqual([])

    expect(await world.autokernel('resume')).toMatchObject({ code: 0 })
    await vi.waitFor(async () => expect((await status()).experiments).toBeGreaterThan(experiments), patience)
    expect(await world.autokernel('stop')).toMatchObject({ code: 0 })
    await vi.waitFor(() => expect(existsSync(join(run, 'REPORT.md'))).toBe(true), patience)
    await vi.waitFor(async () => expect((await status()).phase).toBe('finished'), patience)
    expect(world.rows().filter((row) => row.status === 'baseline').length).toBeGreaterThanOrEqual(2)
    expect((await world.autokernel('logs')).stdout).toMatch(
      /paused; the device is free[\s\S]*going on[\s\S]*done: autokernel stop asked for the end/,
    )
  },
  20 * MINUTES,
)
