/** Reads what nvidia-smi prints as CSV. */
import type { Gpu } from './gpu-facts.ts'

const FIELDS = [
  'index',
  'uuid',
  'name',
  'memory.total',
  'memory.used',
  'clocks.sm',
  'clocks.mem',
  'clocks.max.sm',
  'temperature.gpu',
  'power.draw',
  'utilization.gpu',
  'driver_version',
  'clocks_throttle_reasons.active', // since driver 535 also clocks_event_reasons; 580 still takes this one
]
const FORMAT = '--format=csv,noheader,nounits'

export const NVIDIA_GPUS = [`--query-gpu=${FIELDS.join(',')}`, FORMAT]
export const NVIDIA_APPS = ['--query-compute-apps=gpu_uuid,pid,used_memory,process_name', FORMAT] // the name last: it may hold commas

// nvml.h, nvmlClocksEventReasons. Bit 0 is an idle GPU.
const REASONS: [bigint, string][] = [
  [0x2n, 'clocks set by hand'],
  [0x4n, 'power cap'],
  [0x8n, 'hardware slowdown'],
  [0x10n, 'sync boost'],
  [0x20n, 'thermal (software)'],
  [0x40n, 'thermal (hardware)'],
  [0x80n, 'power brake'],
  [0x100n, 'display clocks'],
]

/** Lines that are no rows (a GPU that fell off the bus puts a sentence there) are left out. */
export function parseNvidia(gpus: string, apps: string): Gpu[] {
  const processes = lines(apps).flatMap((line) => {
    const [id = '', pid = '', used = '', ...name] = line.split(', ')
    return /^\d+$/.test(pid) ? [{ id, process: { pid: Number(pid), name: name.join(', '), usedMb: number(used) } }] : []
  })
  return lines(gpus).flatMap((line): Gpu[] => {
    const fields = line.split(', ')
    const [
      index = '',
      id = '',
      name = '',
      memory,
      used,
      clock,
      memoryClock,
      maxClock,
      temperature,
      power,
      busy,
      driver = '',
      reasons = '',
    ] = fields
    if (fields.length !== FIELDS.length || !/^\d+$/.test(index)) return []
    return [
      {
        index: Number(index),
        id,
        name,
        memoryMb: number(memory),
        usedMb: number(used),
        clockMhz: number(clock),
        maxClockMhz: number(maxClock),
        memoryClockMhz: number(memoryClock),
        temperatureC: number(temperature),
        powerW: number(power),
        busyPct: number(busy),
        driver: driver.startsWith('[') ? null : driver,
        throttled: throttled(reasons),
        processes: processes.filter((one) => one.id === id).map((one) => one.process),
      },
    ]
  })
}

function throttled(mask: string): string[] {
  if (!/^0x[0-9a-f]+$/i.test(mask)) return []
  return REASONS.filter(([bit]) => (BigInt(mask) & bit) !== 0n).map(([, name]) => name)
}

/** '[N/A]', '[Not Supported]' and '[Unknown Error]' are null. */
function number(text = ''): number | null {
  return /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : null
}

function lines(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
}
