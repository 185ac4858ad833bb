/** Reads what amd-smi prints as JSON: a list of GPUs in ROCm 6, the same list under "gpu_data" since ROCm 7. */
import { z } from 'zod'
import type { Gpu } from './gpu-facts.ts'

/** 12, {value: 12, unit: "W"}, "N/A" or {value: "N/A", unit: "W"}. */
const Quantity = z
  .union([z.number(), z.object({ value: z.union([z.number(), z.string()]), unit: z.string().optional() }), z.string()])
  .optional()
type Quantity = z.infer<typeof Quantity>

const Named = z.string().optional()
const Static = z.object({
  gpu: z.number().int(),
  asic: z.object({ market_name: Named, target_graphics_version: Named }).optional(),
  bus: z.object({ bdf: Named }).optional(),
  vram: z.object({ size: Quantity, vram_size: Quantity }).optional(),
  driver: z.object({ version: Named, driver_version: Named }).optional(),
})
const Clock = z.object({ clk: Quantity, max_clk: Quantity })
const Metric = z.object({
  gpu: z.number().int(),
  usage: z.object({ gfx_activity: Quantity }).optional(),
  power: z.object({ socket_power: Quantity, throttle_status: Named }).optional(),
  clock: z.object({ gfx_0: Clock.optional(), mem_0: Clock.optional() }).optional(),
  temperature: z.object({ edge: Quantity, hotspot: Quantity }).optional(),
  mem_usage: z.object({ used_vram: Quantity }).optional(),
  throttle: z.union([z.record(z.string(), z.unknown()), z.string()]).optional(),
})
const Process = z.object({
  name: z.string(),
  pid: z.number().int(),
  mem_usage: Quantity,
  memory_usage: z.object({ vram_mem: Quantity }).optional(),
})
const Processes = z.object({
  gpu: z.number().int(),
  process_list: z.array(z.object({ process_info: z.union([Process, z.unknown()]) })).default([]), // a sentence when there are none
})

export function parseAmd(fixed: string, metric: string, processes: string): Gpu[] {
  const metrics = list(metric, Metric)
  const running = list(processes, Processes)
  return list(fixed, Static).map((gpu): Gpu => {
    const now = metrics.find((one) => one.gpu === gpu.gpu)
    const infos = running.find((one) => one.gpu === gpu.gpu)?.process_list ?? []
    return {
      index: gpu.gpu,
      id: known(gpu.bus?.bdf) ?? String(gpu.gpu),
      name: known(gpu.asic?.market_name) ?? known(gpu.asic?.target_graphics_version) ?? 'AMD GPU',
      memoryMb: megabytes(gpu.vram?.size ?? gpu.vram?.vram_size),
      usedMb: megabytes(now?.mem_usage?.used_vram),
      clockMhz: number(now?.clock?.gfx_0?.clk),
      maxClockMhz: number(now?.clock?.gfx_0?.max_clk),
      memoryClockMhz: number(now?.clock?.mem_0?.clk),
      temperatureC: number(now?.temperature?.hotspot) ?? number(now?.temperature?.edge), // MI300X has no edge sensor
      powerW: number(now?.power?.socket_power),
      busyPct: number(now?.usage?.gfx_activity),
      driver: known(gpu.driver?.version) ?? known(gpu.driver?.driver_version),
      throttled: throttled(now),
      processes: infos.flatMap(({ process_info }) => {
        const process = Process.safeParse(process_info).data
        return process
          ? [{ pid: process.pid, name: process.name, usedMb: megabytes(process.memory_usage?.vram_mem ?? process.mem_usage) }]
          : []
      }),
    }
  })
}

/** Entries of a form we do not know are left out; an answer that is no JSON is an empty list. */
function list<T>(text: string, schema: z.ZodType<T>): T[] {
  let found: unknown
  try {
    found = JSON.parse(text)
  } catch {
    return []
  }
  const wrapped = z.object({ gpu_data: z.array(z.unknown()) }).safeParse(found)
  const entries = wrapped.success ? wrapped.data.gpu_data : z.array(z.unknown()).safeParse(found).data
  return (entries ?? []).flatMap((entry) => schema.safeParse(entry).data ?? [])
}

function throttled(metric: z.infer<typeof Metric> | undefined): string[] {
  const violations = typeof metric?.throttle === 'object' ? Object.entries(metric.throttle) : []
  const active = violations.filter(([key, value]) => key.endsWith('_violation_status') && value === 'ACTIVE')
  const reasons = active.map(([key]) => key.replace('_violation_status', '').replaceAll('_', ' '))
  return reasons.length === 0 && metric?.power?.throttle_status === 'THROTTLED' ? ['throttled'] : reasons
}

function known(text: string | undefined): string | null {
  return text === undefined || text === '' || text === 'N/A' ? null : text
}

function number(quantity: Quantity): number | null {
  const value = typeof quantity === 'object' ? quantity.value : quantity
  return typeof value === 'number' ? value : null
}

function megabytes(quantity: Quantity): number | null {
  const value = number(quantity)
  if (value === null) return null
  const unit = typeof quantity === 'object' ? (quantity.unit ?? 'B') : 'B'
  const scale: Record<string, number> = { B: 2 ** -20, KB: 2 ** -10, MB: 1, GB: 2 ** 10 }
  return Math.round(value * (scale[unit] ?? 1))
}
