/** A plausible request to an agent, for tests to change in one place. */
import { normalizedHash } from '../../src/core/source-hash.ts'
import type { Request } from '../../src/ports.ts'
import { CommitSha } from '../../src/schema.ts'
import type { Attempt } from '../../src/types.ts'

export const KERNEL = `"""y = x * rsqrt(mean(x^2) + eps) * w; memory bound: x once in, y once out."""
import torch
import triton
import triton.language as tl

KERNEL_TYPE = "rmsnorm"
BACKEND = "triton"
BLOCK = 1024  # tune: 256 512 1024 2048 4096
NUM_WARPS = 4  # tune: 2 4 8


@triton.jit
def rmsnorm_kernel(y_ptr, x_ptr, w_ptr, n_cols, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * n_cols + cols, mask=cols < n_cols, other=0.0).to(tl.float32)
    rstd = tl.rsqrt(tl.sum(x * x, axis=0) / n_cols + eps)
    w = tl.load(w_ptr + cols, mask=cols < n_cols, other=0.0).to(tl.float32)
    tl.store(y_ptr + row * n_cols + cols, (x * rstd * w).to(y_ptr.dtype.element_ty), mask=cols < n_cols)


def kernel_fn(x, weight, eps=1e-6):
    y = torch.empty_like(x)
    rmsnorm_kernel[(x.shape[0],)](y, x, weight, x.shape[1], eps, BLOCK=BLOCK, num_warps=NUM_WARPS)
    return y
`

export const PLAYBOOK = `# Playbook

## Every backend
Read once, write once.

## Triton
Marked constants are swept.

## CUDA C++
Wide loads.

## C++ (CPU)
Threads over rows.
`

export function request(changes: Partial<Request> = {}): Request {
  return {
    id: 1,
    repair: null,
    others: 0,
    sweep: 0,
    target: {
      name: 'rmsnorm',
      op: 'rmsnorm',
      op_file: null,
      dtype: 'bf16',
      backend: 'triton',
      share: 0.12,
      shapes: [
        { shape: [4096, 4096], options: { eps: 1e-6 }, weight: 0.8, calls: 32 },
        { shape: [1, 4096], options: { eps: 1e-6 }, weight: 0.2, calls: 1 },
      ],
      sites: ['layers.0.norm'],
    },
    device: {
      kind: 'cuda',
      name: 'NVIDIA H200',
      torch: '2.11.0',
      triton: '3.6.0',
      runtime: 'cuda 13.0',
      memory_gb: 139.8,
      cache_bytes: 60 * 2 ** 20,
      measured: { gbps: 4296, tflops: { bf16: 790, fp32: 50 } },
      datasheet: { gbps: 4800, tflops: 989.5 },
    },
    incumbent: { commit: CommitSha.parse('abc1234'), source: KERNEL, latencyUs: 20.8, evidence: null },
    baselines: {
      start: { us: 22, ci95: 0.1 },
      eager: { us: 128.8, ci95: 0.4 },
      vendor: { us: 27.1, ci95: 0.2 },
      compile: { us: 22.0, ci95: 0.1 },
      busy: false,
      shapes: [],
      roofline: { bound: 'memory', bytes: 67_117_056, flops: 100_663_296, limit_us: 15.6 },
    },
    attempts: [],
    inFlight: [],
    tried: () => false,
    playbook: PLAYBOOK,
    steer: '',
    seed: 7,
    ...changes,
  }
}

export function attempt(changes: Partial<Attempt> & { source?: string } = {}): Attempt {
  const { source, ...fields } = changes
  return {
    experiment: 1,
    hypothesis: 'one pass over the row',
    agent: 'anthropic',
    outcome: 'slower',
    gain: 0.97,
    predictedGain: 1.1,
    detail: '',
    points: [],
    evidence: null,
    sourceHash: source === undefined ? 'f'.repeat(64) : normalizedHash(source),
    ...fields,
  }
}

export const never = new AbortController().signal
