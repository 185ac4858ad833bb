"""flash_attention_gqa: softmax(Q K^T * sm_scale) V, each K/V head serving a group of consecutive query heads.

Bound by arithmetic. Causal 2,32 over 8,2048,128 is 69 GFLOP: 87 us at the 790 TFLOP/s an H200 reaches in 16 bit. A
tile's rows are the group's heads at one position after another, so that all heads of a group share each load of keys
and values, and a single query still fills tensor cores. The scores never leave the registers: keys and values stream
past by cp.async, with a running maximum and sum per row; exponentials are base 2, the scale folded into one FMA. The
causal mask is aligned top-left: position i sees keys 0..i. fp32 runs on the ordinary cores: TF32 would lose 13 bits.
"""

import functools
import math

import torch

from autokernel_rt import (
    CUDA_ATTENTION,
    CUDA_ATTENTION_FFMA,
    CUDA_PRELUDE,
    CUDA_TENSOR,
    FLOAT,
    I64,
    INT,
    PTR,
    compile_cuda,
    device,
    dtype_code,
    rows_of_words,
)

KERNEL_TYPE = "flash_attention_gqa"
BACKEND = "cuda"

BLOCK_M = 128  # tune: 64 128
BLOCK_N = 32  # tune: 32 64
WARP_ROWS = 32  # tune: 16 32
SMALL_M = 128  # tune: 64 128
SMALL_N = 64  # tune: 32 64 128
SMALL_ROWS = 32  # tune: 16 32

TENSOR = r"""
constexpr int THREADS = BLOCK_M / WARP_ROWS * 32, ROW_TILES = WARP_ROWS / 16, KEY_TILES = BLOCK_N / 8;
constexpr int DIM_TILES = HEAD_DIM / 8, WORDS = HEAD_DIM / 8;
constexpr int Q_BYTES = BLOCK_M * HEAD_DIM * 2, KV_BYTES = BLOCK_N * HEAD_DIM * 2;
constexpr bool KEEP_Q = ROW_TILES * HEAD_DIM <= 128;  // in registers, else they are read again for each tile of keys

// Where word w of a row lies: HEAD_DIM / 64 tiles of `Rows` rows of 128 bytes.
template <int Rows> DEVICE int spot(int row, int word) { return word / 8 * (Rows * 128) + swizzled(row, word % 8); }
template <int Rows, class Offset> DEVICE void load(u32 to, const T* x, int rows, int dims, Offset offset) {
#pragma unroll
  for (int i = threadIdx.x; i < Rows * WORDS; i += THREADS) {
    const int row = i / WORDS, word = i % WORDS;
    const bool valid = row < rows && word * 8 < dims;
    cp_async(to + spot<Rows>(row, word), valid ? x + offset(row) + word * 8 : x, valid);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    attention(T* o, const T* q, const T* k, const T* v, i64 q_batch, i64 q_head, i64 q_row, i64 k_batch, i64 k_head,
              i64 k_row, i64 v_batch, i64 v_head, i64 v_row, int kv_heads, int n_queries, int n_keys, int n_dims,
              float scale) {
  DYNAMIC_SHARED(dynamic);
  const u32 q_tile = shared_address(dynamic), kv_tiles = q_tile + Q_BYTES;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int first;
  i64 batch, head;
  place(first, batch, head, n_queries * GROUP, BLOCK_M, kv_heads);
  q += batch * q_batch + head * GROUP * q_head;
  k += batch * k_batch + head * k_head;
  v += batch * v_batch + head * v_head;

  auto load_keys = [&](int key) {
    const u32 to = kv_tiles + key / BLOCK_N % 2 * (2 * KV_BYTES);
    const int left = min(n_keys - key, BLOCK_N);
    load<BLOCK_N>(to, k + (i64)key * k_row, left, n_dims, [&](int row) { return row * k_row; });
    load<BLOCK_N>(to + KV_BYTES, v + (i64)key * v_row, left, n_dims, [&](int row) { return row * v_row; });
    cp_async_commit();
  };
  const int rows_left = min(n_queries * GROUP - first, BLOCK_M);
  load<BLOCK_M>(q_tile, q, rows_left, n_dims, [&](int row) { return within(first + row, q_head, q_row); });
  load_keys(0);

  const int mine = first + warp * WARP_ROWS;  // the warp's first row
  const int stop = CAUSAL ? min(n_keys, position(first + BLOCK_M - 1) + 1) : n_keys;
  auto load_queries = [&](u32(&to)[ROW_TILES][4], int d) {
#pragma unroll
    for (int i = 0; i < ROW_TILES; i++)
      ldmatrix(to[i], q_tile + spot<BLOCK_M>(warp * WARP_ROWS + i * 16 + lane % 16, d * 2 + lane / 16));
  };
  float acc[ROW_TILES][DIM_TILES][4] = {}, top[ROW_TILES][2], total[ROW_TILES][2] = {};
  u32 queries[KEEP_Q ? HEAD_DIM / 16 : 1][ROW_TILES][4];
#pragma unroll
  for (int i = 0; i < ROW_TILES; i++) top[i][0] = top[i][1] = LOWEST;

  for (int key = 0; key < stop; key += BLOCK_N) {
    cp_async_wait<0>();
    __syncthreads();  // this tile has arrived for all, and all are done with the one before
    if (key + BLOCK_N < stop) load_keys(key + BLOCK_N);
    if (CAUSAL && key > position(mine + WARP_ROWS - 1)) continue;  // none of the warp's rows sees any of it
    const u32 k_tile = kv_tiles + key / BLOCK_N % 2 * (2 * KV_BYTES), v_tile = k_tile + KV_BYTES;

    if (KEEP_Q && key == 0) {
#pragma unroll
      for (int d = 0; d < HEAD_DIM / 16; d++) load_queries(queries[KEEP_Q ? d : 0], d);
    }
    float s[ROW_TILES][KEY_TILES][4] = {};
#pragma unroll
    for (int d = 0; d < HEAD_DIM / 16; d++) {
      u32(&left)[ROW_TILES][4] = queries[KEEP_Q ? d : 0];
      if (!KEEP_Q) load_queries(left, d);
#pragma unroll
      for (int n = 0; n < KEY_TILES; n += 2) {
        u32 right[4];
        ldmatrix(right, k_tile + spot<BLOCK_N>(n * 8 + lane / 16 * 8 + lane % 8, d * 2 + lane / 8 % 2));
#pragma unroll
        for (int i = 0; i < ROW_TILES; i++) {
          mma(s[i][n], left[i], right[0], right[1]);
          mma(s[i][n + 1], left[i], right[2], right[3]);
        }
      }
    }
    if (key + BLOCK_N > n_keys || (CAUSAL && key + BLOCK_N - 1 > position(mine))) {
#pragma unroll
      for (int i = 0; i < ROW_TILES; i++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
          const int last = CAUSAL ? min(n_keys - 1, position(mine + i * 16 + lane / 4 + e / 2 * 8)) : n_keys - 1;
          const int seen = last - key - lane % 4 * 2 - e % 2;
#pragma unroll
          for (int n = 0; n < KEY_TILES; n++)
            if (n * 8 > seen) s[i][n][e] = -INF;
        }
    }
#pragma unroll
    for (int i = 0; i < ROW_TILES; i++)
#pragma unroll
      for (int r = 0; r < 2; r++) {  // a thread has parts of two rows of each tile, shared with its three neighbours
        float high = top[i][r], sum = 0;
#pragma unroll
        for (int n = 0; n < KEY_TILES; n++) high = fmaxf(high, fmaxf(s[i][n][2 * r], s[i][n][2 * r + 1]));
        high = fmaxf(high, shfl_xor(high, 1));
        high = fmaxf(high, shfl_xor(high, 2));
        const float shrink = exp2_of((top[i][r] - high) * scale), from = high * scale;
        top[i][r] = high;
#pragma unroll
        for (int n = 0; n < KEY_TILES; n++)
#pragma unroll
          for (int e = 2 * r; e < 2 * r + 2; e++) sum += s[i][n][e] = exp2_of(s[i][n][e] * scale - from);
        total[i][r] = total[i][r] * shrink + sum;
#pragma unroll
        for (int d = 0; d < DIM_TILES; d++) acc[i][d][2 * r] *= shrink, acc[i][d][2 * r + 1] *= shrink;
      }
    // the fragments of two score tiles, rounded, are the fragment of a left operand
#pragma unroll
    for (int n = 0; n < KEY_TILES; n += 2) {
      u32 left[ROW_TILES][4];
#pragma unroll
      for (int i = 0; i < ROW_TILES; i++)
#pragma unroll
        for (int e = 0; e < 4; e++) left[i][e] = pair(s[i][n + e / 2][e % 2 * 2], s[i][n + e / 2][e % 2 * 2 + 1]);
#pragma unroll
      for (int d = 0; d < DIM_TILES; d += 2) {
        u32 right[4];
        ldmatrix_trans(right, v_tile + spot<BLOCK_N>(n * 8 + lane % 16, d + lane / 16));
#pragma unroll
        for (int i = 0; i < ROW_TILES; i++) {
          mma(acc[i][d], left[i], right[0], right[1]);
          mma(acc[i][d + 1], left[i], right[2], right[3]);
        }
      }
    }
  }

  // through the warp's own rows of the query tile, so that rows are written in whole words
  sync_warp();
#pragma unroll
  for (int i = 0; i < ROW_TILES; i++)
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float sum = total[i][r] + shfl_xor(total[i][r], 1);
      sum = 1.0f / (sum + shfl_xor(sum, 2));
      const int row = warp * WARP_ROWS + i * 16 + lane / 4 + r * 8;
#pragma unroll
      for (int d = 0; d < DIM_TILES; d++)
        *(u32*)(dynamic + spot<BLOCK_M>(row, d) + lane % 4 * 4) =
            pair(acc[i][d][2 * r] * sum, acc[i][d][2 * r + 1] * sum);
    }
  sync_warp();
  o += (batch * kv_heads + head) * GROUP * n_queries * n_dims;
  for (int i = lane; i < WARP_ROWS * WORDS; i += 32) {
    const int row = warp * WARP_ROWS + i / WORDS, word = i % WORDS;
    if (row < rows_left && word * 8 < n_dims)
      *(uint4*)(o + within(first + row, (i64)n_queries * n_dims, n_dims) + word * 8) =
          load16(dynamic + spot<BLOCK_M>(row, word));
  }
}
"""

SIGNATURE = (PTR, PTR, PTR, PTR, I64, I64, I64, I64, I64, I64, I64, I64, I64, INT, INT, INT, INT, FLOAT)


@functools.cache
def build(source: str, **defines: int):
    return compile_cuda(source, defines).kernel("attention", *SIGNATURE)


def kernel_fn(
    Q: torch.Tensor, K: torch.Tensor, V: torch.Tensor, causal: bool = True, sm_scale: float | None = None
) -> torch.Tensor:
    batches, heads, n_queries, n_dims = Q.shape
    kv_heads, n_keys = K.shape[1:3]
    if kv_heads == 0 or heads % kv_heads:
        raise ValueError(f"flash_attention_gqa: {heads} query heads cannot share {kv_heads} key/value heads evenly")
    if n_dims > 256:
        raise ValueError(f"flash_attention_gqa: heads of at most 256 dimensions fit into registers, got {n_dims}")
    if Q.numel() == 0 or n_keys == 0:
        return torch.zeros(Q.shape, dtype=Q.dtype, device=Q.device)
    scale = n_dims**-0.5 if sm_scale is None else sm_scale
    if scale < 0:  # the largest score is found before scaling
        Q, scale = -Q, -scale
    scale = max(scale, 1e-30) * math.log2(math.e)  # 0 would make NaN of the masked scores, which are -inf

    q, k, v = map(rows_of_words, (Q, K, V))
    o = torch.empty((batches, heads, n_queries, q.shape[-1]), dtype=Q.dtype, device=Q.device)
    dtype, group, dim = dtype_code(Q), heads // kv_heads, -(-q.shape[-1] // 64) * 64
    defines = {"DTYPE": dtype, "HEAD_DIM": dim, "GROUP": group, "CAUSAL": int(causal)}
    if dtype == 0 or not device().tensor_cores:
        keys = 32 if dim > 128 else 64
        block, threads, shared = 64, 256, 4 * ((64 + 2 * keys) * (dim + 4) + 64 * (keys + 4))
        kernel = build(CUDA_PRELUDE + CUDA_ATTENTION + CUDA_ATTENTION_FFMA, **defines)
    else:
        wide, narrow = (BLOCK_M, BLOCK_N, WARP_ROWS), (SMALL_M, SMALL_N, SMALL_ROWS)
        block, keys, rows = narrow if dim == 64 else wide if dim == 128 else (64, 32, 16)
        threads, shared = block // rows * 32, 2 * dim * (block + 4 * keys)
        source = CUDA_PRELUDE + CUDA_TENSOR + CUDA_ATTENTION + TENSOR
        kernel = build(source, **defines, BLOCK_M=block, BLOCK_N=keys, WARP_ROWS=rows)
    strides = (*q.stride()[:3], *k.stride()[:3], *v.stride()[:3])
    args = (o, q, k, v, *strides, kv_heads, n_queries, n_keys, q.shape[-1], scale)
    kernel.launch(-(-n_queries * group // block) * batches * kv_heads, threads, args, shared)
    return o if q.shape[-1] == n_dims else o[..., :n_dims].contiguous()
