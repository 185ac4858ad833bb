import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { gpuFacts } from '../../src/effects/gpu.ts'
import { parseAmd } from '../../src/effects/gpu-amd.ts'
import { NVIDIA_GPUS, parseNvidia } from '../../src/effects/gpu-nvidia.ts'
import { tempFolder } from './temp.ts'

const recorded = (name: string): string => readFileSync(new URL(`../fixtures/gpu/${name}`, import.meta.url), 'utf8')
const mi300x = (): [string, string, string] => [
  recorded('amd-mi300x-static.json'),
  recorded('amd-mi300x-metric.json'),
  recorded('amd-mi300x-process.json'),
]

/** A program by this name that runs a line of shell. */
function tool(name: string, script: string): string {
  const path = join(tempFolder(), name)
  writeFileSync(path, `#!/bin/sh\n${script}\n`)
  chmodSync(path, 0o755)
  return path
}

describe('nvidia-smi', () => {
  it('tells name, memory, clocks and heat of an idle H200, which is not throttled', () => {
    expect(parseNvidia(recorded('nvidia-h200-idle.csv'), '')).toEqual([
      {
        index: 0,
        id: 'GPU-1f6c2a54-0b0e-4f57-9d3a-5c1de5a7a001',
        name: 'NVIDIA H200',
        memoryMb: 143771,
        usedMb: 0,
        clockMhz: 480,
        maxClockMhz: 1980,
        memoryClockMhz: 3201,
        temperatureC: 38,
        powerW: 127.72,
        busyPct: 0,
        driver: '580.159.04',
        throttled: [],
        processes: [],
      },
    ])
  })

  it('tells of a busy H200 that its power cap slows it and who keeps it busy', () => {
    const [gpu] = parseNvidia(recorded('nvidia-h200-busy.csv'), recorded('nvidia-h200-apps.csv'))
    expect(gpu).toMatchObject({ clockMhz: 1380, throttled: ['power cap'], processes: [{ pid: 410, name: 'python3', usedMb: 1002 }] })
  })

  it('keeps two H100 apart, with the processes of each, and knows several reasons at once', () => {
    const [idle, busy] = parseNvidia(recorded('nvidia-h100.csv'), recorded('nvidia-h100-apps.csv'))
    expect(idle).toMatchObject({ index: 0, name: 'NVIDIA H100 80GB HBM3', memoryMb: 81559, throttled: [], processes: [] })
    expect(busy).toMatchObject({ index: 1, clockMhz: 1215, throttled: ['power cap', 'thermal (software)', 'thermal (hardware)'] })
    expect(busy?.processes).toEqual([
      { pid: 41873, name: '/opt/conda/bin/python3.11', usedMb: 60510 },
      { pid: 41990, name: 'train, resumed', usedMb: null },
    ])
  })

  it('has null for what it does not say, and leaves out a GPU that fell off the bus', () => {
    const gpus = parseNvidia(recorded('nvidia-not-available.csv'), '')
    expect(gpus).toHaveLength(1)
    expect(gpus[0]).toMatchObject({
      name: 'NVIDIA H100 80GB HBM3 MIG 1g.10gb',
      usedMb: null,
      temperatureC: null,
      powerW: null,
      driver: null,
      throttled: [],
    })
  })
})

describe('amd-smi', () => {
  it('tells the same of two MI300X, from its three answers', () => {
    const [idle, busy] = parseAmd(...mi300x())
    expect(idle).toEqual({
      index: 0,
      id: '0000:0c:00.0',
      name: 'AMD Instinct MI300X',
      memoryMb: 196592,
      usedMb: 283,
      clockMhz: 132,
      maxClockMhz: 2100,
      memoryClockMhz: 900,
      temperatureC: 43,
      powerW: 140,
      busyPct: 0,
      driver: '6.10.5',
      throttled: [],
      processes: [],
    })
    expect(busy).toMatchObject({ clockMhz: 1523, throttled: ['ppt', 'socket thermal'] })
    expect(busy?.processes).toEqual([{ pid: 2828560, name: 'python3', usedMb: 150922 }])
  })

  it('is understood in the form of ROCm 7, where the list lies under gpu_data', () => {
    const [fixed, metric, processes] = mi300x()
    const wrap = (text: string): string => JSON.stringify({ gpu_data: JSON.parse(text) })
    expect(parseAmd(wrap(fixed), wrap(metric), processes)).toEqual(parseAmd(fixed, metric, processes))
  })

  it('still gives the name when metric and process answer nothing, and nothing when it is not JSON', () => {
    expect(parseAmd(recorded('amd-mi300x-static.json'), '', '')[0]).toMatchObject({
      name: 'AMD Instinct MI300X',
      clockMhz: null,
      processes: [],
    })
    expect(parseAmd('ERROR: driver not loaded', '', '')).toEqual([])
    const nameless = JSON.stringify([{ gpu: 0, asic: { market_name: 'N/A', target_graphics_version: 'gfx942' }, vram: 'N/A' }])
    expect(parseAmd(nameless.replace(',"vram":"N/A"', ''), '', '')[0]).toMatchObject({ name: 'gfx942', memoryMb: null })
  })
})

describe('the GPUs of a machine', () => {
  const fixture = (name: string): string => new URL(`../fixtures/gpu/${name}`, import.meta.url).pathname

  it('are found with nvidia-smi, asked for exactly the columns that are read', async () => {
    const smi = tool(
      'nvidia-smi',
      `case "$1" in ${NVIDIA_GPUS[0]}) cat ${fixture('nvidia-h200-busy.csv')};; *) cat ${fixture('nvidia-h200-apps.csv')};; esac`,
    )
    const found = await gpuFacts({ nvidiaSmi: smi, amdSmi: '/nonexistent/amd-smi' })
    expect(found).toMatchObject({ kind: 'found', vendor: 'nvidia', gpus: [{ name: 'NVIDIA H200', processes: [{ pid: 410 }] }] })
  })

  it('are found with amd-smi where there is no nvidia-smi', async () => {
    const smi = tool('amd-smi', `cat ${fixture('amd-mi300x-')}$1.json`)
    const found = await gpuFacts({ nvidiaSmi: '/nonexistent/nvidia-smi', amdSmi: smi })
    expect(found).toMatchObject({
      kind: 'found',
      vendor: 'amd',
      gpus: [{ name: 'AMD Instinct MI300X' }, { throttled: ['ppt', 'socket thermal'] }],
    })
  })

  it.each([
    [
      'the driver does not answer the tool',
      `echo "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."; exit 9`,
      /couldn't communicate/,
    ],
    ['there is a driver but no GPU', 'echo "No devices were found"; exit 6', /No devices were found/],
    ['the tool answers in other columns', 'echo "NVIDIA H100 80GB HBM3, 81559 MiB"', /know of no GPU/],
  ])('are none, with the reason, when %s', async (_, script, why) => {
    const found = await gpuFacts({ nvidiaSmi: tool('nvidia-smi', script), amdSmi: '/nonexistent/amd-smi' })
    expect(found).toEqual({ kind: 'none', why: expect.stringMatching(why) })
  })

  it('are none where there is neither tool', async () => {
    const found = await gpuFacts({ nvidiaSmi: '/nonexistent/nvidia-smi', amdSmi: '/nonexistent/amd-smi' })
    expect(found).toEqual({ kind: 'none', why: expect.stringMatching(/neither nvidia-smi nor amd-smi is on PATH/) })
  })

  it('do not hold us up when the tool hangs with a child of its own', async () => {
    const begun = performance.now()
    const found = await gpuFacts({ nvidiaSmi: tool('nvidia-smi', 'sleep 1000'), amdSmi: '/nonexistent/amd-smi', timeoutMs: 200 })
    expect(found).toMatchObject({ kind: 'none', why: expect.stringMatching(/did not answer within 0\.2 s/) })
    expect(performance.now() - begun).toBeLessThan(5000)
  })
})
