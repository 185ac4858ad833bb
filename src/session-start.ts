/** What the first line of a run's journal holds: the run as it was planned, its model and its device. */
import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { z } from 'zod'
import { ToolError } from './errors.ts'
import type { RunFolder } from './run-folder.ts'
import { Backend, DeviceKind, Dtype, ModelSpec } from './schema.ts'
import type { Run } from './types.ts'

export const Start = z.object({
  run: z.custom<Run>((value) => typeof value === 'object' && value !== null && 'targets' in value && 'rules' in value),
  model: ModelSpec,
  model_hash: z.string().nullable().default(null), // of the model's file; runs begun before it was kept have none
  room: z.object({ device: DeviceKind, dtype: Dtype, backend: Backend, sandbox: z.enum(['auto', 'require', 'none']) }),
  allow_tf32: z.boolean(),
})
export type Start = z.infer<typeof Start>

export function startOf(header: { start: unknown }, folder: RunFolder): Start {
  const start = Start.safeParse(header.start)
  if (!start.success)
    throw new ToolError(`${folder.events}: its first line does not hold what a run starts with\n${z.prettifyError(start.error)}`)
  return start.data
}

/** SHA-256 of what the file holds; '' where there is none. */
export const fileHash = (file: string): string => (existsSync(file) ? createHash('sha256').update(readFileSync(file)).digest('hex') : '')

/** What whoever reads the proof must know of the model's file, or null while it is the one that the run began with. */
export function modelChange({ model, model_hash }: Pick<Start, 'model' | 'model_hash'>): string | null {
  if (model_hash === null || model_hash === fileHash(model.file)) return null
  return `${basename(model.file)} is not what it was when the run began: its kernels were chosen for the model as it was, and proved in the model as it is now`
}
