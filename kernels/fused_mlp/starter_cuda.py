"""fused_mlp: y = (act(x @ w_gate^T) * (x @ w_up^T)) @ w_down^T, weights as nn.Linear keeps them, accumulated in fp32.

Bound by arithmetic. M,D,H = 2048,2048,5504 is 138 GFLOP: 175 us at the 790 TFLOP/s an H200 reaches in 16 bit; the
bytes, the hidden activation's write and read among them, would take 31. One source makes both kernels. In the first one
half of a block's columns is of gate and the other of up, so that each tile of x feeds both and a thread holds the sums
that belong together: the activation costs no pass of its own. The second is a plain product. Tiles stream through
shared memory by cp.async and are multiplied by wgmma on a Hopper GPU, else by mma.sync; fp32 by the ordinary cores.
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

KERNEL_TYPE = "fused_mlp"
BACKEND = "cuda"

BLOCK_M = 128  # tune: 64 128
BLOCK_N = 256  # tune: 128 256
STAGES = 4  # tune: 3 4 5 6
GROUP_M = 8  # tune: 4 8 16
MIN_TILES = 96  # tune: 64 96 132
WGMMA = 1  # tune: 0 1
FFMA_TILES = 132  # tune: 66 132 264

ACTIVATIONS = {"silu": 0, "gelu": 1, "gelu_erf": 2, "relu": 3}

ORDER = r"""
// GROUP_M rows of tiles are walked column by column: the tiles in flight then share few rows of x and of the weights.
DEVICE void place(i64& row, i64& col, i64 M, i64 N, int block_m, int block_n) {
  const int tiles_m = (M + block_m - 1) / block_m, in_group = GROUP_M * (int)((N + block_n - 1) / block_n);
  const int first = blockIdx.x / in_group * GROUP_M, height = min(tiles_m - first, GROUP_M);
  row = (i64)(first + blockIdx.x % in_group % height) * block_m;
  col = (i64)(blockIdx.x % in_group / height) * block_n;
}
DEVICE float activate(float x) {
  if (ACTIVATION == 0) return x / (1.0f + exp_of(-x));
  // 0.5 (1 + tanh u) = 1 / (1 + exp(-2u)), with u = sqrt(2 / pi) (x + 0.044715 x^3)
  if (ACTIVATION == 1) return x / (1.0f + exp_of(-1.5957691216057308f * (x + 0.044715f * x * x * x)));
  if (ACTIVATION == 2) return 0.5f * x * (1.0f + erff(x * 0.7071067811865476f));
  return x < 0 ? 0.0f : x;  // not fmaxf(x, 0), which would drop NaN
}
"""

TENSOR = r"""
constexpr int AHEAD = STAGES - (USE_WGMMA ? 2 : 1);  // wgmma still reads the stage before the current one

constexpr int WIDTH = DUAL ? BLOCK_N / 2 : BLOCK_N;   // columns of y that a block makes

// y = x w^T, or y = act(x w^T) * (x up^T). All rows are whole aligned words, with zeros at their end.
extern "C" __global__ void __launch_bounds__(THREADS)
    mlp(T* y, const T* x, const T* w, const T* up, i64 M, i64 N, i64 K, i64 y_stride, i64 x_stride, i64 w_stride,
        i64 up_stride) {
  DYNAMIC_SHARED(dynamic);
  unsigned char* const stages = dynamic + (1024 - shared_address(dynamic) % 1024) % 1024;
  const u32 shared = shared_address(stages);
  i64 row, col;
  place(row, col, M, N, BLOCK_M, WIDTH);

  const int steps = (K + BLOCK_K - 1) / BLOCK_K;
  auto load = [&](int step) {
    if (step < steps) {
      const u32 to = shared + step % STAGES * STAGE_BYTES;
      const i64 k = (i64)step * BLOCK_K;
      load_rows<BLOCK_M>(to, x + row * x_stride + k, x_stride, M - row, K - k);
      load_rows<WIDTH>(to + A_BYTES, w + col * w_stride + k, w_stride, N - col, K - k);
      if (DUAL) load_rows<WIDTH>(to + A_BYTES + WIDTH * 128, up + col * up_stride + k, up_stride, N - col, K - k);
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
    if (DUAL && !has_partner(f)) continue;
    float v[4];
#pragma unroll
    for (int i = 0; i < 4; i++) v[i] = DUAL ? activate(acc[f * 4 + i]) * acc[partner(f) * 4 + i] : acc[f * 4 + i];
    T* const at = tile + (fragment_row(f) + lane / 4) * (WIDTH + 8) + fragment_col(f) + lane % 4 * 2;
    *(u32*)at = pair(v[0], v[1]);
    *(u32*)(at + 8 * (WIDTH + 8)) = pair(v[2], v[3]);
  }
  __syncthreads();
  write_tile<WIDTH>(y + row * y_stride + col, y_stride, tile, M - row, N - col);
}
"""

FFMA = r"""
constexpr int WIDTH = DUAL ? FFMA_BLOCK / 2 : FFMA_BLOCK;

extern "C" __global__ void __launch_bounds__(256, FFMA_BLOCK == 64 ? 2 : 1)
    mlp(T* y, const T* x, const T* w, const T* up, i64 M, i64 N, i64 K, i64 y_stride, i64 x_stride, i64 w_stride,
        i64 up_stride) {
  i64 row, col;
  place(row, col, M, N, FFMA_BLOCK, WIDTH);
  float sum[SIDE][SIDE] = {};
  ffma_tile<true>(
      sum, K, [&](int i, i64 k) { return row + i < M && k < K ? widen(x[(row + i) * x_stride + k]) : 0.0f; },
      [&](i64 k, int j) {
        const i64 n = col + j % WIDTH;
        return n < N && k < K ? widen(j < WIDTH ? w[n * w_stride + k] : up[n * up_stride + k]) : 0.0f;
      });
#pragma unroll
  for (int i = 0; i < SIDE; i++)
#pragma unroll
    for (int j = 0; j < (DUAL ? SIDE / 2 : SIDE); j++)
      if (row + my_row(i) < M && col + my_col(j) < N)
        narrow(DUAL ? activate(sum[i][j]) * sum[i][j + SIDE / 2] : sum[i][j],
               y[(row + my_row(i)) * y_stride + col + my_col(j)]);
}
"""

SIGNATURE = (PTR, PTR, PTR, PTR, I64, I64, I64, I64, I64, I64, I64)


@functools.cache
def tensor_kernel(dtype: int, dual: int, activation: int, block_m: int, block_n: int, stages: int):
    defines = {"DTYPE": dtype, "DUAL": dual, "ACTIVATION": activation, "GROUP_M": GROUP_M, "WGMMA": WGMMA, "B_TRANS": 0}
    defines |= {"BLOCK_M": block_m, "BLOCK_N": block_n, "STAGES": stages}
    return compile_cuda(CUDA_PRELUDE + CUDA_TENSOR + ORDER + TENSOR, defines).kernel("mlp", *SIGNATURE)


@functools.cache
def ffma_kernel(dtype: int, dual: int, activation: int, block: int):
    defines = {"DTYPE": dtype, "DUAL": dual, "ACTIVATION": activation, "GROUP_M": GROUP_M, "FFMA_BLOCK": block}
    return compile_cuda(CUDA_PRELUDE + CUDA_FFMA + ORDER + FFMA, defines).kernel("mlp", *SIGNATURE)


def tiles(m: int, n: int, block_m: int, block_n: int) -> int:
    return -(-m // block_m) * -(-n // block_n)


def product(y: torch.Tensor, x: torch.Tensor, weights: list[torch.Tensor], activation: int) -> None:
    """y = x w^T for one weight, act(x gate^T) * (x up^T) for two."""
    (m, k), n, dual = x.shape, weights[0].shape[0], len(weights) - 1
    dtype, gpu, w, up = dtype_code(x), device(), weights[0], weights[-1]
    strides = (y.stride(0), x.stride(0), w.stride(0), up.stride(0))
    args = (y, x, w, up, m, n, k, *strides)
    if dtype == 0 or not gpu.tensor_cores:
        block = 128 if dual or tiles(m, n, 128, 128) >= FFMA_TILES else 64
        ffma_kernel(dtype, dual, activation, block).launch(tiles(m, n, block, block >> dual), 256, args)
        return
    sizes = ((BLOCK_M, BLOCK_N), (BLOCK_M, 128), (64, 128), (64, 128 >> (1 - dual)))  # smaller until the GPU is full
    block_m, block_n = next((size for size in sizes if tiles(m, n, size[0], size[1] >> dual) >= MIN_TILES), sizes[-1])
    stage = (block_m + block_n) * 128
    stages = min(STAGES, (gpu.shared - 1024) // stage)
    shared = stages * stage + 1024  # stages begin at multiples of 1024
    kernel = tensor_kernel(dtype, dual, activation, block_m, block_n, stages)
    kernel.launch(tiles(m, n, block_m, block_n >> dual), 2 * block_m, args, shared)


def kernel_fn(
    x: torch.Tensor, w_gate: torch.Tensor, w_up: torch.Tensor, w_down: torch.Tensor, activation: str = "silu"
) -> torch.Tensor:
    if activation not in ACTIVATIONS:
        raise ValueError(f"fused_mlp: expected activation silu, gelu, gelu_erf or relu, got '{activation}'")
    hidden, d = w_gate.shape
    y = torch.empty((*x.shape[:-1], w_down.shape[0]), dtype=x.dtype, device=x.device)
    if y.numel() == 0 or hidden == 0 or d == 0:
        return y.zero_()
    x, gate, up, down = map(rows_of_words, (x.reshape(-1, d), w_gate, w_up, w_down))
    padded = down.shape[1] - hidden  # h must be whole words too; what is past its end meets zeros of down
    h = torch.empty((x.shape[0], hidden + padded), dtype=x.dtype, device=x.device)
    if padded:
        h[:, hidden:] = 0
    product(h[:, :hidden], x, [gate, up], ACTIVATIONS[activation])
    product(y.view(-1, y.shape[-1]), h, [down], 0)
    return y
