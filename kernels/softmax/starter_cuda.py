"""softmax: y = exp(x - max x) / sum exp(x - max x), over the last dimension.

Bound by memory: one read and one write. 4096 x 4096 in 16 bit moves 67 MB: 15.6 us at the 4296 GB/s an H200 copies.
A row's threads hold it in registers, as 16-byte words, between the read and the write; short rows share a block. Rows
that do not fit are read twice, first for maximum and sum in one pass, and the second read mostly hits the L2 cache.
"""

import functools

import torch

from autokernel_rt import CUDA_PRELUDE, I64, INT, PTR, compile_cuda, dtype_code

KERNEL_TYPE = "softmax"
BACKEND = "cuda"

PER_THREAD = 4  # tune: 1 2 4 8
MIN_THREADS = 128  # tune: 64 128 256
MAX_WORDS = 8  # tune: 4 8
LONG_THREADS = 512  # tune: 256 512 1024
UNROLL = 4  # tune: 2 4 8

SOURCE = r"""
#ifndef LONG
// THREADS of a row hold WORDS words each; ROWS rows make a block.
extern "C" __global__ void __launch_bounds__(THREADS * ROWS)
    softmax(T* __restrict__ y, const T* __restrict__ x, i64 n_rows, int n) {
  const i64 row = (i64)blockIdx.x * ROWS + threadIdx.x / THREADS;
  const int head = head_of<EVEN>(row, n), end = row < n_rows ? head + n : 0;
  const int first = threadIdx.x % THREADS * VEC;
  const T* const from = x + row * n - head;
  T* const to = y + row * n - head;

  // what lies outside of the row is -inf: never the maximum, and exp makes it 0
  uint4 raw[WORDS];
#pragma unroll
  for (int i = 0; i < WORDS; i++) raw[i] = fetch<EVEN>(from, first + i * THREADS * VEC, head, end, NEG_INF);

  float f[VEC], top = -INF, total = 0;
#pragma unroll
  for (int i = 0; i < WORDS; i++) {
    unpack(raw[i], f);
#pragma unroll
    for (int j = 0; j < VEC; j++) top = fmaxf(top, f[j]);
  }
  top = across<THREADS, Max, 0>(top);
#pragma unroll
  for (int i = 0; i < WORDS; i++) {
    renew(raw[i]);
    unpack(raw[i], f);
    float part = 0;
#pragma unroll
    for (int j = 0; j < VEC; j++) part += exp_of(f[j] - top);
    total += part;
  }
  const float scale = 1.0f / across<THREADS, Sum, 0>(total);
#pragma unroll
  for (int i = 0; i < WORDS; i++) {
    renew(raw[i]);
    unpack(raw[i], f);
#pragma unroll
    for (int j = 0; j < VEC; j++) f[j] = exp_of(f[j] - top) * scale;
    put<EVEN>(to, first + i * THREADS * VEC, head, end, pack(f));
  }
}
#else
extern "C" __global__ void __launch_bounds__(THREADS)
    softmax(T* __restrict__ y, const T* __restrict__ x, i64 n_rows, int n) {
  const i64 row = blockIdx.x;
  const int head = head_of<EVEN>(row, n), end = head + n, step = THREADS * VEC;
  const T* const from = x + row * n - head;
  T* const to = y + row * n - head;

  // each thread has a maximum and a sum of its own: one exp an element, no exchange before the end
  float f[VEC], top = LOWEST, total = 0;
  for (int at = threadIdx.x * VEC; at < end; at += UNROLL * step) {
    uint4 raw[UNROLL];
#pragma unroll
    for (int u = 0; u < UNROLL; u++) raw[u] = fetch<EVEN>(from, at + u * step, head, end, NEG_INF);
    float high = top;
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
      unpack(raw[u], f);
#pragma unroll
      for (int j = 0; j < VEC; j++) high = fmaxf(high, f[j]);
    }
    total *= exp_of(top - high);
    top = high;
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
      unpack(raw[u], f);
      float part = 0;
#pragma unroll
      for (int j = 0; j < VEC; j++) part += exp_of(f[j] - high);
      total += part;
    }
  }
  const float row_top = across<THREADS, Max, 0>(top);
  const float scale = 1.0f / across<THREADS, Sum, 0>(total * exp_of(top - row_top));

  for (int at = threadIdx.x * VEC; at < end; at += UNROLL * step) {
    uint4 raw[UNROLL];
#pragma unroll
    for (int u = 0; u < UNROLL; u++) raw[u] = fetch<EVEN>(from, at + u * step, head, end, NEG_INF);
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
      unpack(raw[u], f);
#pragma unroll
      for (int j = 0; j < VEC; j++) f[j] = exp_of(f[j] - row_top) * scale;
      put<EVEN>(to, at + u * step, head, end, pack(f));
    }
  }
}
#endif
"""


@functools.cache
def build(**defines: int):
    return compile_cuda(CUDA_PRELUDE + SOURCE, defines).kernel("softmax", PTR, PTR, I64, INT)


def kernel_fn(x: torch.Tensor) -> torch.Tensor:
    x = x.contiguous() if x.data_ptr() % 16 == 0 else x.clone(memory_format=torch.contiguous_format)
    y = torch.empty_like(x)
    if y.numel() == 0:
        return y
    n, vec, dtype = x.shape[-1], 16 // x.element_size(), dtype_code(x)
    n_rows, even = x.numel() // n, int(n % vec == 0)
    words = n // vec if even else (n + 2 * vec - 2) // vec  # a row may begin and end inside of a word
    threads = min(1024, max(8, 1 << (-(-words // PER_THREAD) - 1).bit_length()))
    per_thread, rows = -(-words // threads), max(1, MIN_THREADS // threads)
    if per_thread > MAX_WORDS:
        kernel = build(DTYPE=dtype, EVEN=even, LONG=1, THREADS=LONG_THREADS, UNROLL=UNROLL)
        kernel.launch(n_rows, LONG_THREADS, (y, x, n_rows, n))
    else:
        kernel = build(DTYPE=dtype, EVEN=even, THREADS=threads, WORDS=per_thread, ROWS=rows)
        kernel.launch(-(-n_rows // rows), threads * rows, (y, x, n_rows, n))
    return y
