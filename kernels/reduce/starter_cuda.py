"""reduce: y = sum of x over one dimension, accumulated in fp32.

Bound by memory: one read. 8192 x 8192 in 16 bit is 134 MB: 31.2 us at the 4296 GB/s an H200 moves. x is seen as
[outer, n, inner] with n summed away. Where inner is 1 some threads share a row, several 16-byte words in flight each.
Else a thread sums down its columns over part of n, and a second kernel adds the parts up: always in the same order.
"""

import functools

import torch

from autokernel_rt import CUDA_PRELUDE, I64, INT, PTR, compile_cuda, device, dtype_code

KERNEL_TYPE = "reduce"
BACKEND = "cuda"

PER_THREAD = 4  # tune: 1 2 4 8
UNROLL = 4  # tune: 2 4 8
MIN_THREADS = 128  # tune: 128 256
MAX_THREADS = 256  # tune: 128 256 512 1024
COLUMN_ROWS = 4  # tune: 2 4 8
COLUMN_UNROLL = 8  # tune: 4 8 16
WAVES = 8  # tune: 4 8 16

SOURCE = r"""
typedef Sum Op;
constexpr u32 NOTHING = 0;  // the bits of what Op leaves unchanged, and that number
constexpr float IDENTITY = 0;

#if ALONG_ROWS
extern "C" __global__ void __launch_bounds__(THREADS * ROWS)
    fold_rows(T* __restrict__ y, const T* __restrict__ x, i64 n_rows, int n) {
  const i64 row = (i64)blockIdx.x * ROWS + threadIdx.x / THREADS;
  const int head = head_of<EVEN>(row, n), end = row < n_rows ? head + n : 0, step = THREADS * VEC;
  const T* const from = x + row * n - head;
  float part[UNROLL];  // several short chains: their errors and their latencies add up less
#pragma unroll
  for (int u = 0; u < UNROLL; u++) part[u] = IDENTITY;
  for (int at = threadIdx.x % THREADS * VEC; at < end; at += UNROLL * step) {
    uint4 raw[UNROLL];
#pragma unroll
    for (int u = 0; u < UNROLL; u++) raw[u] = fetch<EVEN>(from, at + u * step, head, end, NOTHING);
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
      float f[VEC], word = IDENTITY;
      unpack(raw[u], f);
#pragma unroll
      for (int j = 0; j < VEC; j++) word = Op::of(word, f[j]);
      part[u] = Op::of(part[u], word);
    }
  }
#pragma unroll
  for (int u = 1; u < UNROLL; u++) part[0] = Op::of(part[0], part[u]);
  const float whole = across<THREADS, Op, 0>(part[0]);
  if (threadIdx.x % THREADS == 0 && row < n_rows) narrow(whole, y[row]);
}
#else
constexpr int COLS = EVEN ? VEC : 1;  // of a thread; 32 threads stand side by side, ROWS deep

DEVICE Word column_word(const T* from) {
  Word w;
  if (EVEN) w.raw = load16_here(from);
  else w.element[0] = *from;
  return w;
}
DEVICE void add(float (&part)[COLS], Word w) {
#pragma unroll
  for (int j = 0; j < COLS; j++) part[j] = Op::of(part[j], widen(w.element[j]));
}

// parts[outer][split][inner] of x[outer][n][inner], a split being `depth` of n
extern "C" __global__ void __launch_bounds__(32 * ROWS, 32 / ROWS)
    fold_columns(float* __restrict__ parts, const T* __restrict__ x, i64 n, i64 inner, i64 depth, i64 splits) {
  const i64 stripes = (inner + 32 * COLS - 1) / (32 * COLS), block = blockIdx.x / stripes;  // outer * splits + split
  const i64 col = (blockIdx.x % stripes * 32 + threadIdx.x % 32) * COLS;
  const i64 from = block % splits * depth, to = min(from + depth, n);
  const T* const base = x + block / splits * n * inner + col;
  float part[COLS];
#pragma unroll
  for (int j = 0; j < COLS; j++) part[j] = IDENTITY;
  if (col < inner) {
    i64 i = from + threadIdx.x / 32;
    for (; i + (UNROLL - 1) * ROWS < to; i += UNROLL * ROWS) {  // all loads before the first use
      Word w[UNROLL];
#pragma unroll
      for (int u = 0; u < UNROLL; u++) w[u] = column_word(base + (i + u * ROWS) * inner);
#pragma unroll
      for (int u = 0; u < UNROLL; u++) add(part, w[u]);
    }
    for (; i < to; i += ROWS) add(part, column_word(base + i * inner));
  }
  __shared__ float of_row[ROWS][32 * COLS + 1];
#pragma unroll
  for (int j = 0; j < COLS; j++) of_row[threadIdx.x / 32][threadIdx.x % 32 * COLS + j] = part[j];
  __syncthreads();
  for (int i = threadIdx.x; i < 32 * COLS; i += 32 * ROWS) {
    float whole = of_row[0][i];
#pragma unroll
    for (int r = 1; r < ROWS; r++) whole = Op::of(whole, of_row[r][i]);
    const i64 at = blockIdx.x % stripes * 32 * COLS + i;
    if (at < inner) parts[block * inner + at] = whole;
  }
}

extern "C" __global__ void __launch_bounds__(256)
    fold_parts(T* __restrict__ y, const float* __restrict__ parts, i64 n_outs, i64 inner, i64 splits) {
  const i64 out = (i64)blockIdx.x * 256 + threadIdx.x;
  if (out >= n_outs) return;
  const float* const from = parts + out / inner * splits * inner + out % inner;
  float whole = from[0];
#pragma unroll 8
  for (i64 s = 1; s < splits; s++) whole = Op::of(whole, from[s * inner]);
  narrow(whole, y[out]);
}
#endif
"""


@functools.cache
def build_rows(**defines: int):
    module = compile_cuda(CUDA_PRELUDE + SOURCE, {"ALONG_ROWS": 1, "UNROLL": UNROLL, **defines})
    return module.kernel("fold_rows", PTR, PTR, I64, INT)


@functools.cache
def build_columns(**defines: int):
    module = compile_cuda(CUDA_PRELUDE + SOURCE, {"ALONG_ROWS": 0, "UNROLL": COLUMN_UNROLL, **defines})
    signatures = ((PTR, PTR, I64, I64, I64, I64), (PTR, PTR, I64, I64, I64))
    return module.kernel("fold_columns", *signatures[0]), module.kernel("fold_parts", *signatures[1])


def fold_columns(y: torch.Tensor, x: torch.Tensor, outer: int, n: int, inner: int) -> None:
    dtype, vec = dtype_code(x), 16 // x.element_size()
    even = int(inner % vec == 0)
    blocks = outer * -(-inner // (32 * (vec if even else 1)))
    step = COLUMN_ROWS * COLUMN_UNROLL
    splits = max(1, min(-(-n // step), WAVES * device().processors // blocks))
    depth = -(-n // (splits * step)) * step
    splits = -(-n // depth)
    parts = torch.empty((outer, splits, inner), dtype=torch.float32, device=x.device)
    columns, together = build_columns(DTYPE=dtype, EVEN=even, ROWS=COLUMN_ROWS)
    columns.launch(blocks * splits, 32 * COLUMN_ROWS, (parts, x, n, inner, depth, splits))
    together.launch(-(-outer * inner // 256), 256, (y, parts, outer * inner, inner, splits))


def kernel_fn(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    dim %= x.dim()
    x = x.contiguous() if x.data_ptr() % 16 == 0 else x.clone(memory_format=torch.contiguous_format)
    outer, n, inner = x.shape[:dim].numel(), x.shape[dim], x.shape[dim + 1 :].numel()
    y = torch.empty(x.shape[:dim] + x.shape[dim + 1 :], dtype=x.dtype, device=x.device)
    if x.numel() == 0:
        return y.zero_()
    if inner > 1:
        fold_columns(y, x, outer, n, inner)
        return y
    vec = 16 // x.element_size()
    words = -(-n // vec)
    threads = min(MAX_THREADS, 1 << (-(-words // PER_THREAD) - 1).bit_length())
    rows = max(1, MIN_THREADS // threads)
    kernel = build_rows(DTYPE=dtype_code(x), EVEN=int(n % vec == 0), THREADS=threads, ROWS=rows)
    kernel.launch(-(-outer // rows), threads * rows, (y, x, outer, n))
    return y
