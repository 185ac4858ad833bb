/** What the first line of a run's journal holds: the run as it was planned, its model and its device. */
import { z } from 'zod'
import { ToolError } from './errors.ts'
import type { RunFolder } from './run-folder.ts'
import { Backend, DeviceKind, Dtype, ModelSpec } from './schema.ts'
import type { Run } from './types.ts'

export const Start = z.object({
  run: z.custom<Run>((value) => typeof value === 'object' && value !== null && 'targets' in value && 'rules' in value),
  model: ModelSpec,
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
