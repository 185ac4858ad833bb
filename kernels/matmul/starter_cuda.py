"""matmul: C[M,N] = A[M,K] @ B[K,N], accumulated in fp32.

Bound by arithmetic. 2048^3 is 17.2 GFLOP: 21.7 us at the 790 TFLOP/s an H200 reaches in 16 bit, and 4096^3 is 174 us;
the bytes would take 6 and 23. Tiles of A and B stream through shared memory by cp.async, some stages ahead of the
tensor cores, which read them from there: wgmma on a Hopper GPU, else mma.sync. An order in which neighbouring blocks
share their operands in the L2 cache does the rest. fp32 runs on the ordinary cores: TF32 would lose 13 bits.
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

KERNEL_TYPE = "matmul"
BACKEND = "cuda"

BLOCK_M = 128  # tune: 64 128
BLOCK_N = 256  # tune: 64 128 256
STAGES = 4  # tune: 3 4 5 6
GROUP_M = 8  # tune: 4 8 16
MIN_TILES = 96  # tune: 64 96 132
WGMMA = 1  # tune: 0 1
FFMA_TILES = 132  # tune: 66 132 264

ORDER = r"""
// GROUP_M rows of tiles are walked column by column: the tiles in flight then share few rows of A and columns of B.
DEVICE void place(i64& row, i64& col, i64 M, i64 N, int block_m, int block_n) {
  const int tiles_m = (M + block_m - 1) / block_m, in_group = GROUP_M * (int)((N + block_n - 1) / block_n);
  const int first = blockIdx.x / in_group * GROUP_M, height = min(tiles_m - first, GROUP_M);
  row = (i64)(first + blockIdx.x % in_group % height) * block_m;
  col = (i64)(blockIdx.x % in_group / height) * block_n;
}
"""

TENSOR = r"""
constexpr int AHEAD = STAGES - (USE_WGMMA ? 2 : 1);  // wgmma still reads the stage before the current one

// Rows of a and b are whole aligned words, with zeros at their end where K or N is not a multiple of 8.
extern "C" __global__ void __launch_bounds__(THREADS)
    matmul(T* c, const T* a, const T* b, i64 M, i64 N, i64 K, i64 a_stride, i64 b_stride) {
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
      load_rows<BLOCK_M>(to, a + row * a_stride + k, a_stride, M - row, K - k);
      load_columns<BLOCK_N>(to + A_BYTES, b + k * b_stride + col, b_stride, K - k, N - col);
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
    T* const at = tile + (fragment_row(f) + lane / 4) * (BLOCK_N + 8) + fragment_col(f) + lane % 4 * 2;
    *(u32*)at = pair(acc[f * 4], acc[f * 4 + 1]);
    *(u32*)(at + 8 * (BLOCK_N + 8)) = pair(acc[f * 4 + 2], acc[f * 4 + 3]);
  }
  __syncthreads();
  write_tile<BLOCK_N>(c + row * N + col, N, tile, M - row, N - col);
}
"""

FFMA = r"""
extern "C" __global__ void __launch_bounds__(256, FFMA_BLOCK == 64 ? 2 : 1)
    matmul(T* c, const T* a, const T* b, i64 M, i64 N, i64 K, i64 a_row, i64 a_col, i64 b_row, i64 b_col) {
  i64 row, col;
  place(row, col, M, N, FFMA_BLOCK, FFMA_BLOCK);
  float sum[SIDE][SIDE] = {};
  ffma_tile<false>(
      sum, K,
      [&](int i, i64 k) { return row + i < M && k < K ? widen(a[(row + i) * a_row + k * a_col]) : 0.0f; },
      [&](i64 k, int j) { return col + j < N && k < K ? widen(b[k * b_row + (col + j) * b_col]) : 0.0f; });
#pragma unroll
  for (int i = 0; i < SIDE; i++)
#pragma unroll
    for (int j = 0; j < SIDE; j++)
      if (row + my_row(i) < M && col + my_col(j) < N) narrow(sum[i][j], c[(row + my_row(i)) * N + col + my_col(j)]);
}
"""


@functools.cache
def tensor_kernel(dtype: int, block_m: int, block_n: int, stages: int):
    defines = {"DTYPE": dtype, "BLOCK_M": block_m, "BLOCK_N": block_n, "STAGES": stages, "GROUP_M": GROUP_M}
    module = compile_cuda(CUDA_PRELUDE + CUDA_TENSOR + ORDER + TENSOR, {**defines, "WGMMA": WGMMA, "B_TRANS": 1})
    return module.kernel("matmul", PTR, PTR, PTR, I64, I64, I64, I64, I64)


@functools.cache
def ffma_kernel(dtype: int, block: int):
    defines = {"DTYPE": dtype, "FFMA_BLOCK": block, "GROUP_M": GROUP_M}
    module = compile_cuda(CUDA_PRELUDE + CUDA_FFMA + ORDER + FFMA, defines)
    return module.kernel("matmul", PTR, PTR, PTR, I64, I64, I64, I64, I64, I64, I64)


def tiles(m: int, n: int, block_m: int, block_n: int) -> int:
    return -(-m // block_m) * -(-n // block_n)


def kernel_fn(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    (m, k), n = A.shape, B.shape[1]
    c = torch.empty((m, n), dtype=A.dtype, device=A.device)
    if c.numel() == 0 or k == 0:
        return c.zero_()
    dtype, gpu = dtype_code(A), device()
    if dtype == 0 or not gpu.tensor_cores:
        block = 128 if tiles(m, n, 128, 128) >= FFMA_TILES else 64
        args = (c, A, B, m, n, k, *A.stride(), *B.stride())
        ffma_kernel(dtype, block).launch(tiles(m, n, block, block), 256, args)
        return c

    a, b = rows_of_words(A), rows_of_words(B)
    narrow = min(BLOCK_N, 128)
    sizes = ((BLOCK_M, BLOCK_N), (BLOCK_M, narrow), (64, narrow), (64, 64))  # smaller until the GPU is full
    block_m, block_n = next((size for size in sizes if tiles(m, n, *size) >= MIN_TILES), sizes[-1])
    stage = (block_m + block_n) * 128
    stages = min(STAGES, (gpu.shared - 1024) // stage)
    args = (c, a, b, m, n, k, a.stride(0), b.stride(0))
    shared = stages * stage + 1024  # stages begin at multiples of 1024
    kernel = tensor_kernel(dtype, block_m, block_n, stages)
    kernel.launch(tiles(m, n, block_m, block_n), 2 * block_m, args, shared)
    return c
