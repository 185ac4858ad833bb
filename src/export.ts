/** optimized/: the folder a user takes home, kernels with all that they need besides torch. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { packageRoot } from './package-root.ts'
import type { Target } from './schema.ts'

/** By their paths in a commit: apply() as the package's __init__, and the autokernel_* files of kernels/ beside it. */
export function supportFiles(): Record<string, string> {
  const folder = join(packageRoot, 'kernels')
  const names = readdirSync(folder).filter((name) => /^autokernel_\w+\.py$/.test(name))
  const inExport = (name: string) => `optimized/${name === 'autokernel_apply.py' ? '__init__.py' : name}`
  return Object.fromEntries(names.sort().map((name) => [inExport(name), readFileSync(join(folder, name), 'utf8')]))
}

/** Says which kernels apply() puts into a model, and for which calls. */
export function manifest(targets: Target[], active: string[]): string {
  const kernels = targets.map((t) => ({
    kernel: t.name,
    op: t.op,
    dtype: t.dtype,
    backend: t.backend,
    shapes: t.shapes,
    active: active.includes(t.name),
  }))
  return `${JSON.stringify({ format: 1, kernels }, null, 2)}\n`
}
