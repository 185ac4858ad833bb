/** What the GPUs are and what else keeps them busy, asked of nvidia-smi or amd-smi, neither of which may hang us. */

import { parseAmd } from './gpu-amd.ts'
import type { Gpu } from './gpu-facts.ts'
import { NVIDIA_APPS, NVIDIA_GPUS, parseNvidia } from './gpu-nvidia.ts'
import { runTool, type ToolRun } from './tool.ts'

export type GpuFacts = { kind: 'found'; vendor: 'nvidia' | 'amd'; gpus: Gpu[] } | { kind: 'none'; why: string }

type Asked = { timeoutMs?: number; nvidiaSmi?: string; amdSmi?: string }

export async function gpuFacts({ timeoutMs = 5000, nvidiaSmi = 'nvidia-smi', amdSmi = 'amd-smi' }: Asked = {}): Promise<GpuFacts> {
  const nvidia = await ask(nvidiaSmi, [NVIDIA_GPUS, NVIDIA_APPS], timeoutMs)
  if (nvidia.kind === 'answers') {
    const [gpus = '', apps = ''] = nvidia.texts
    const found = parseNvidia(gpus, apps)
    if (found.length > 0) return { kind: 'found', vendor: 'nvidia', gpus: found }
  }
  const amd = await ask(
    amdSmi,
    [
      ['static', '--json'],
      ['metric', '--json'],
      ['process', '--json'],
    ],
    timeoutMs,
  )
  if (amd.kind === 'answers') {
    const [fixed = '', metric = '', processes = ''] = amd.texts
    const found = parseAmd(fixed, metric, processes)
    if (found.length > 0) return { kind: 'found', vendor: 'amd', gpus: found }
  }
  const reasons = [nvidia, amd].flatMap((answer) => (answer.kind === 'failed' ? [answer.why] : []))
  return { kind: 'none', why: reasons.join('; ') || 'neither nvidia-smi nor amd-smi is on PATH, or they know of no GPU' }
}

type Answer = { kind: 'answers'; texts: string[] } | { kind: 'failed'; why: string } | { kind: 'missing' }

async function ask(tool: string, questions: string[][], timeoutMs: number): Promise<Answer> {
  const runs = await Promise.all(questions.map((args) => runTool(tool, args, { timeoutMs })))
  const [first] = runs
  if (!first || first.kind === 'missing') return { kind: 'missing' }
  if (first.kind === 'timeout') return { kind: 'failed', why: `${tool} did not answer within ${timeoutMs / 1000} s` }
  if (first.code !== 0)
    return { kind: 'failed', why: `${tool}: ${[...first.err, ...first.out].find((line) => line.trim() !== '') ?? `exit ${first.code}`}` }
  return { kind: 'answers', texts: runs.map(textOf) } // only the first question must be answered
}

function textOf(run: ToolRun): string {
  return run.kind === 'ended' && run.code === 0 ? run.out.join('\n') : ''
}
