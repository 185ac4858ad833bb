/** Facts about the host: processor, memory, load and free disk. */
import { statfs } from 'node:fs/promises'
import { cpu, currentLoad, mem } from 'systeminformation'

export type Host = {
  cpu: string
  cores: number // physical
  threads: number
  memoryGb: number
  freeMemoryGb: number
  load: number // average of the last minute per thread: 1 is fully busy
  freeDiskGb: number // for us, where the folder lies
}

export async function hostFacts(folder: string): Promise<Host> {
  const [processor, memory, busy, disk] = await Promise.all([cpu(), mem(), currentLoad(), statfs(folder)])
  return {
    cpu: [processor.manufacturer, processor.brand].filter(Boolean).join(' ') || 'unknown',
    cores: processor.physicalCores,
    threads: processor.cores,
    memoryGb: gb(memory.total),
    freeMemoryGb: gb(memory.available),
    load: busy.avgLoad,
    freeDiskGb: gb(disk.bavail * disk.bsize), // asked of the folder itself: a container does not list the disk it lies on
  }
}

function gb(bytes: number): number {
  return Math.round(bytes / 1e8) / 10
}
