/** What nvidia-smi and amd-smi tell of one GPU. */

export type Gpu = {
  index: number
  id: string // UUID, or the bus address where the tool gives no UUID
  name: string
  memoryMb: number | null
  usedMb: number | null
  clockMhz: number | null
  maxClockMhz: number | null
  memoryClockMhz: number | null
  temperatureC: number | null
  powerW: number | null
  busyPct: number | null
  driver: string | null
  throttled: string[] // why the clocks are lower than they could be; being idle is no reason
  processes: { pid: number; name: string; usedMb: number | null }[]
}
