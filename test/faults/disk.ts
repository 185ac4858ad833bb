/** A small disk of its own for a test: it can be filled, freed and made read-only. Needs a machine where we may mount. */
import { execFileSync, spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const PAGE = 4096

export class Disk {
  readonly folder = mkdtempSync(join(tmpdir(), 'autokernel-disk-'))
  private readonly filler = join(this.folder, 'filler')

  constructor() {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', this.folder])
  }

  /** Null, or why no test of this kind can run here. */
  static lacking(): string | null {
    const folder = mkdtempSync(join(tmpdir(), 'autokernel-mount-'))
    const { status, stderr } = spawnSync('mount', ['-t', 'tmpfs', 'tmpfs', folder], { encoding: 'utf8' })
    if (status === 0) execFileSync('umount', [folder])
    rmSync(folder, { recursive: true })
    return status === 0 ? null : `this machine lets nobody mount a disk: ${stderr.trim()}`
  }

  /** Takes all of its space but so many pages. */
  fill(pagesLeft: number): void {
    const file = openSync(this.filler, 'a')
    const { bavail } = statfsSync(this.folder)
    const page = Buffer.alloc(PAGE)
    try {
      for (let left = bavail; left > pagesLeft; left--) writeSync(file, page)
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'ENOSPC')) throw error // a run writes to it as well
    } finally {
      closeSync(file)
    }
  }

  free(): void {
    rmSync(this.filler, { force: true })
  }

  readOnly(really: boolean): void {
    execFileSync('mount', ['-o', `remount,${really ? 'ro' : 'rw'}`, this.folder])
  }

  remove(): void {
    execFileSync('umount', ['--lazy', this.folder])
    rmSync(this.folder, { recursive: true })
  }
}
