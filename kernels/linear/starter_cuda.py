"""linear: y = x @ weight^T + bias, weight [N,K] as nn.Linear keeps it, accumulated in fp32.

Bound by arithmetic. M,N,K = 2048^3 is 17.2 GFLOP: 21.7 us at the 790 TFLOP/s an H200 reaches in 16 bit; the bytes would
take 6. Rows of x and of the weight both run along K, as the tensor cores want them: tiles of either stream through
shared memory by cp.async, some stages ahead, and are multiplied from there by wgmma on a Hopper GPU, else by mma.sync.
An order in which neighbouring blocks share their operands in the L2 cache does the rest. fp32 runs on the ordinary
cores: TF32 would lose 13 bits.
"""

import functools

import torch

from autokernel_rt import (
    CUDA_FFMA,
    CUDA_PRELUDE,
    CUDA_TENSOR,
    I64,
    PTR,
    compile_cuda,
    device,
    dtype_code,
    rows_of_words,
)

KERNEL_TYPE = "linear"
BACKEND = "cuda"

BLOCK_M = 128  # tune: 64 128
BLOCK_N = 256  # tune: 64 128 256
STAGES = 4  # tune: 3 4 5 6
GROUP_M = 8  # tune: 4 8 16
MIN_TILES = 96  # tune: 64 96 132
WGMMA = 1  # tune: 0 1
FFMA_TILES = 132  # tune: 66 132 264

ORDER = r"""
// GROUP_M rows of tiles are walked column by column: the tiles in flight then share few rows of x and of the weight.
DEVICE void place(i64& row, i64& col, i64 M, i64 N, int block_m, int block_n) {
  const int tiles_m = (M + block_m - 1) / block_m, in_group = GROUP_M * (int)((N + block_n - 1) / block_n);
  const int first = blockIdx.x / in_group * GROUP_M, height = min(tiles_m - first, GROUP_M);
  row = (i64)(first + blockIdx.x % in_group % height) * block_m;
  col = (i64)(blockIdx.x % in_group / height) * block_n;
}
"""

TENSOR = r"""
constexpr int AHEAD = STAGES - (USE_WGMMA ? 2 : 1);  // wgmma still reads the stage before the current one

// Rows of x and w are whole aligned words, with zeros at their end where K is not a multiple of 8. bias may be null.
extern "C" __global__ void __launch_bounds__(THREADS)
    linear(T* y, const T* x, const T* w, const T* bias, i64 M, i64 N, i64 K, i64 x_stride, i64 w_stride) {
  DYNAMIC_SHARED(dynamic);
  unsigned char* const stages = dynamic + (1024 - shared_address(dynamic) % 1024) % 1024;
  const u32 shared = shared_address(stages);
  i64 row, col;
  place(row, col, M, N, BLOCK_M, BLOCK_N);

  const int steps = (K + BLOCK_K - 1) / BLOCK_K;
  auto load = [&](int step) {
    if (step < steps) {
      const u32 to = shared + step % STAGES * STAGE_BYTES;
      const i64 k = (i64)step * BLOCK_K;
      load_rows<BLOCK_M>(to, x + row * x_stride + k, x_stride, M - row, K - k);
      load_rows<BLOCK_N>(to + A_BYTES, w + col * w_stride + k, w_stride, N - col, K - k);
    }
    cp_async_commit();
  };
  float acc[BLOCK_N / 2] = {};
  for (int step = 0; step < AHEAD; step++) load(step);
  for (int step = 0; step < steps; step++) {
    cp_async_wait<AHEAD - 1>();
    fence_for_wgmma();
    __syncthreads();  // this stage has arrived for all, and all are done with the one that is loaded next
    const u32 stage = shared + step % STAGES * STAGE_BYTES;
    if (!USE_WGMMA) load(step + AHEAD);
    multiply(acc, stage, stage + A_BYTES);
    if (USE_WGMMA) load(step + AHEAD);
    wgmma_wait<1>();
  }
  wgmma_wait<0>();
  hold(acc);
  __syncthreads();

  // through shared memory, so that rows are written in whole words
  T* const tile = (T*)stages;
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int f = 0; f < FRAGMENTS; f++) {
    const int j = fragment_col(f) + lane % 4 * 2;
    const float left = bias && col + j < N ? widen(bias[col + j]) : 0.0f;
    const float right = bias && col + j + 1 < N ? widen(bias[col + j + 1]) : 0.0f;
    T* const at = tile + (fragment_row(f) + lane / 4) * (BLOCK_N + 8) + j;
    *(u32*)at = pair(acc[f * 4] + left, acc[f * 4 + 1] + right);
    *(u32*)(at + 8 * (BLOCK_N + 8)) = pair(acc[f * 4 + 2] + left, acc[f * 4 + 3] + right);
  }
  __syncthreads();
  write_tile<BLOCK_N>(y + row * N + col, N, tile, M - row, N - col);
}
"""

FFMA = r"""
extern "C" __global__ void __launch_bounds__(256, FFMA_BLOCK == 64 ? 2 : 1)
    linear(T* y, const T* x, const T* w, const T* bias, i64 M, i64 N, i64 K, i64 x_stride, i64 w_stride) {
  i64 row, col;
  place(row, col, M, N, FFMA_BLOCK, FFMA_BLOCK);
  float sum[SIDE][SIDE] = {};
  ffma_tile<true>(
      sum, K, [&](int i, i64 k) { return row + i < M && k < K ? widen(x[(row + i) * x_stride + k]) : 0.0f; },
      [&](i64 k, int j) { return col + j < N && k < K ? widen(w[(col + j) * w_stride + k]) : 0.0f; });
#pragma unroll
  for (int j = 0; j < SIDE; j++) {
    const i64 at = col + my_col(j);
    const float more = bias && at < N ? widen(bias[at]) : 0.0f;
#pragma unroll
    for (int i = 0; i < SIDE; i++)
      if (row + my_row(i) < M && at < N) narrow(sum[i][j] + more, y[(row + my_row(i)) * N + at]);
  }
}
"""


SIGNATURE = (PTR, PTR, PTR, PTR, I64, I64, I64, I64, I64)


@functools.cache
def tensor_kernel(dtype: int, block_m: int, block_n: int, stages: int):
    defines = {"DTYPE": dtype, "BLOCK_M": block_m, "BLOCK_N": block_n, "STAGES": stages, "GROUP_M": GROUP_M}
    module = compile_cuda(CUDA_PRELUDE + CUDA_TENSOR + ORDER + TENSOR, {**defines, "WGMMA": WGMMA, "B_TRANS": 0})
    return module.kernel("linear", *SIGNATURE)


@functools.cache
def ffma_kernel(dtype: int, block: int):
    defines = {"DTYPE": dtype, "FFMA_BLOCK": block, "GROUP_M": GROUP_M}
    module = compile_cuda(CUDA_PRELUDE + CUDA_FFMA + ORDER + FFMA, defines)
    return module.kernel("linear", *SIGNATURE)


def tiles(m: int, n: int, block_m: int, block_n: int) -> int:
    return -(-m // block_m) * -(-n // block_n)


def kernel_fn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    n, k = weight.shape
    y = torch.empty((*x.shape[:-1], n), dtype=x.dtype, device=x.device)
    if y.numel() == 0:
        return y
    if k == 0:
        return y.zero_() if bias is None else y.copy_(bias.expand_as(y))
    rows, bias = x.reshape(-1, k), None if bias is None else bias.contiguous()
    m, dtype, gpu = rows.shape[0], dtype_code(x), device()
    if dtype == 0 or not gpu.tensor_cores:
        rows, weight = (t if t.stride(1) == 1 else t.contiguous() for t in (rows, weight))
        block = 128 if tiles(m, n, 128, 128) >= FFMA_TILES else 64
        args = (y, rows, weight, bias, m, n, k, rows.stride(0), weight.stride(0))
        ffma_kernel(dtype, block).launch(tiles(m, n, block, block), 256, args)
        return y

    rows, weight = rows_of_words(rows), rows_of_words(weight)
    narrow = min(BLOCK_N, 128)
    sizes = ((BLOCK_M, BLOCK_N), (BLOCK_M, narrow), (64, narrow), (64, 64))  # smaller until the GPU is full
    block_m, block_n = next((size for size in sizes if tiles(m, n, *size) >= MIN_TILES), sizes[-1])
    stage = (block_m + block_n) * 128
    stages = min(STAGES, (gpu.shared - 1024) // stage)
    args = (y, rows, weight, bias, m, n, k, rows.stride(0), weight.stride(0))
    shared = stages * stage + 1024  # stages begin at multiples of 1024
    kernel = tensor_kernel(dtype, block_m, block_n, stages)
    kernel.launch(tiles(m, n, block_m, block_n), 2 * block_m, args, shared)
    return y
