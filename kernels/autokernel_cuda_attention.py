"""The CUDA C++ that both attention starters share, after CUDA_PRELUDE: which rows a block has, and the fp32 kernel.

Needs -DGROUP, the query heads that share a key/value head (1 without such groups), -DCAUSAL and -DHEAD_DIM, a multiple
of 64 that holds the head's dimensions.
"""

CUDA_ATTENTION = r"""
// Row r of a tile is head r % GROUP at position r / GROUP.
DEVICE int position(int row) { return row / GROUP; }
DEVICE i64 within(int row, i64 head_stride, i64 row_stride) {
  return row % GROUP * head_stride + row / GROUP * row_stride;
}

// The tile of this block; a head's longest, the last rows, start first, and its tiles run together.
DEVICE void place(int& first, i64& batch, i64& head, int n_rows, int block, int n_heads) {
  const int tiles = (n_rows + block - 1) / block;
  first = (tiles - 1 - blockIdx.x % tiles) * block;
  batch = blockIdx.x / tiles / n_heads;
  head = blockIdx.x / tiles % n_heads;
}
#line 1 "kernel.cu"
"""

# On the ordinary cores, for fp32 and for GPUs without mma.sync. TF32 would lose 13 bits.
CUDA_ATTENTION_FFMA = r"""
// 256 threads, 16 x 16: thread (r, c) has rows 4 r to 4 r + 3 of the tile's 64, keys c, c + 16, .. and 4 columns of 64.
constexpr int THREADS = 256, QUERIES = 64, KEYS = HEAD_DIM > 128 ? 32 : 64, PITCH = HEAD_DIM + 4, COLS = HEAD_DIM / 64;

template <int Rows, class Offset> DEVICE void load(float* to, const T* x, int rows, int dims, Offset offset) {
  constexpr int WORDS = HEAD_DIM / VEC;
  for (int i = threadIdx.x; i < Rows * WORDS; i += THREADS) {
    const int row = i / WORDS, word = i % WORDS;
    alignas(16) float f[VEC];
    unpack(row < rows && word * VEC < dims ? load16(x + offset(row) + word * VEC) : filled(0), f);
#pragma unroll
    for (int j = 0; j < VEC; j += 4) *(float4*)(to + row * PITCH + word * VEC + j) = *(float4*)(f + j);
  }
}
DEVICE float dot(float4 a, float4 b) { return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w; }

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    attention(T* o, const T* q, const T* k, const T* v, i64 q_batch, i64 q_head, i64 q_row, i64 k_batch, i64 k_head,
              i64 k_row, i64 v_batch, i64 v_head, i64 v_row, int kv_heads, int n_queries, int n_keys, int n_dims,
              float scale) {
  DYNAMIC_SHARED(dynamic);
  float* const queries = (float*)dynamic;
  float *const keys = queries + QUERIES * PITCH, *const values = keys + KEYS * PITCH, *const p = values + KEYS * PITCH;
  const int r = threadIdx.x / 16 * 4, c = threadIdx.x % 16;
  int first;
  i64 batch, head;
  place(first, batch, head, n_queries * GROUP, QUERIES, kv_heads);
  q += batch * q_batch + head * GROUP * q_head;
  k += batch * k_batch + head * k_head;
  v += batch * v_batch + head * v_head;
  const int rows_left = min(n_queries * GROUP - first, QUERIES);
  load<QUERIES>(queries, q, rows_left, n_dims, [&](int row) { return within(first + row, q_head, q_row); });

  const int stop = CAUSAL ? min(n_keys, position(first + QUERIES - 1) + 1) : n_keys;
  float acc[4][COLS][4] = {}, top[4] = {LOWEST, LOWEST, LOWEST, LOWEST}, total[4] = {};
  for (int key = 0; key < stop; key += KEYS) {
    const int left = min(n_keys - key, KEYS);
    __syncthreads();
    load<KEYS>(keys, k + (i64)key * k_row, left, n_dims, [&](int row) { return row * k_row; });
    load<KEYS>(values, v + (i64)key * v_row, left, n_dims, [&](int row) { return row * v_row; });
    __syncthreads();
    float s[4][KEYS / 16] = {};
#pragma unroll 4
    for (int d = 0; d < HEAD_DIM; d += 4) {
      float4 x[4];
#pragma unroll
      for (int i = 0; i < 4; i++) x[i] = *(const float4*)(queries + (r + i) * PITCH + d);
#pragma unroll
      for (int j = 0; j < KEYS / 16; j++) {
        const float4 y = *(const float4*)(keys + (c + j * 16) * PITCH + d);
#pragma unroll
        for (int i = 0; i < 4; i++) s[i][j] += dot(x[i], y);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int seen = (CAUSAL ? min(n_keys - 1, position(first + r + i)) : n_keys - 1) - key - c;
      float high = top[i], sum = 0;
#pragma unroll
      for (int j = 0; j < KEYS / 16; j++) high = fmaxf(high, s[i][j] = j * 16 > seen ? -INF : s[i][j]);
#pragma unroll
      for (int mask = 8; mask; mask /= 2) high = fmaxf(high, shfl_xor(high, mask));
      const float shrink = exp2_of((top[i] - high) * scale), from = high * scale;
      top[i] = high;
#pragma unroll
      for (int j = 0; j < KEYS / 16; j++) {
        sum += s[i][j] = exp2_of(s[i][j] * scale - from);
        p[(r + i) * (KEYS + 4) + c + j * 16] = s[i][j];
      }
      total[i] = total[i] * shrink + sum;
#pragma unroll
      for (int d = 0; d < COLS * 4; d++) acc[i][d / 4][d % 4] *= shrink;
    }
    sync_warp();  // the rows of p belong to half a warp
    for (int n = 0; n < KEYS; n += 4) {
      alignas(16) float x[4][4];
#pragma unroll
      for (int i = 0; i < 4; i++) *(float4*)x[i] = *(const float4*)(p + (r + i) * (KEYS + 4) + n);
#pragma unroll
      for (int m = 0; m < 4; m++)
#pragma unroll
        for (int d = 0; d < COLS; d++) {
          const float4 y = *(const float4*)(values + (n + m) * PITCH + d * 64 + c * 4);
#pragma unroll
          for (int i = 0; i < 4; i++) {
            acc[i][d][0] += x[i][m] * y.x, acc[i][d][1] += x[i][m] * y.y;
            acc[i][d][2] += x[i][m] * y.z, acc[i][d][3] += x[i][m] * y.w;
          }
        }
    }
    sync_warp();
  }
  o += (batch * kv_heads + head) * GROUP * n_queries * n_dims;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    float sum = total[i];
#pragma unroll
    for (int mask = 8; mask; mask /= 2) sum += shfl_xor(sum, mask);
    if (r + i >= rows_left) continue;
    T* const to = o + within(first + r + i, (i64)n_queries * n_dims, n_dims);
#pragma unroll
    for (int d = 0; d < COLS; d++)
#pragma unroll
      for (int e = 0; e < 4; e++)
        if (d * 64 + c * 4 + e < n_dims) narrow(acc[i][d][e] / sum, to[d * 64 + c * 4 + e]);
  }
}
"""
