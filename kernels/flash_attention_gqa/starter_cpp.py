"""Grouped-query attention: softmax(Q K^T * sm_scale) V, H heads of Q on Hkv heads of K and V, causal or not, in blocks.

Bound by arithmetic: 4 B H Sq Skv D operations, half of it when causal. Each K/V head is packed once for its whole
group, K transposed in blocks of BLOCK_N keys and V widened; then each block of BLOCK_M queries walks the keys with a
running maximum and sum per row, so that the scores of a block are all that is ever held.
"""

import torch

from autokernel_rt import CPP_PRELUDE, FLOAT, I64, INT, PTR, bind, compile_cpp, dtype_code, ptr

KERNEL_TYPE = "flash_attention_gqa"
BACKEND = "cpp"

BLOCK_M = 64  # tune: 32 64 96 128
BLOCK_N = 64  # tune: 32 64 128 256
MR = 8  # tune: 4 8
GRAIN = 65536  # tune: 16384 65536 262144

SOURCE = r"""
#include <memory>

struct View {  // strides in elements; a row itself is contiguous
  const void* data;
  int64_t batch, head, row;
};
struct Sizes {
  int64_t batch, heads, kv_heads, queries, keys, width;
};

// c[MR][V vectors] (+)= a[MR][depth] b[depth][V vectors], sums in registers.
template <int V> static inline void tile(float* c, int64_t c_row, const float* a, int64_t a_row, const float* b,
                                         int64_t b_row, int64_t depth, bool add) {
  vf s[MR][V] = {};
  for (int64_t k = 0; k < depth; k++, b += b_row) {
    vf row[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) row[v] = load(b + v * W);
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++)
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) s[i][v] += splat(a[i * a_row + k]) * row[v];
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) store(c + i * c_row + v * W, add ? load(c + i * c_row + v * W) + s[i][v] : s[i][v]);
}

static void product(float* c, int64_t c_row, const float* a, int64_t a_row, const float* b, int64_t b_row,
                    int64_t rows, int64_t cols, int64_t depth, bool add) {
  for (int64_t j = 0; j < cols; j += 2 * W)
    for (int64_t i = 0; i < rows; i += MR)
      if (j + 2 * W <= cols) tile<2>(c + i * c_row + j, c_row, a + i * a_row, a_row, b + j, b_row, depth, add);
      else tile<1>(c + i * c_row + j, c_row, a + i * a_row, a_row, b + j, b_row, depth, add);
}

// Scores of one query row become weights, in place; `seen` of them count. Returns what scales the earlier sums.
static float weigh(float* s, int64_t seen, float& high, float& total) {
  vf top = splat(high), sums = {};
  for (int64_t j = 0; j < seen; j += W) top = greater(top, load(s + j, seen - j, -INF));
  const float raised = max(top), base = raised == -INF ? 0.0f : raised;  // a block of -inf adds nothing
  for (int64_t j = 0; j < BLOCK_N; j += W) {
    const vf e = j < seen ? fast_exp(load(s + j, seen - j, -INF) - base) : vf{};
    store(s + j, e);
    sums += e;
  }
  const float scale = fast_exp(high - base);
  high = raised;
  total = total * scale + sum(sums);
  return scale;
}

template <class T> static void attention(T* out, View q, View k, View v, Sizes n, bool causal, float sm_scale) {
  const int64_t key_blocks = (n.keys + BLOCK_N - 1) / BLOCK_N, query_blocks = (n.queries + BLOCK_M - 1) / BLOCK_M;
  const int64_t padded = (n.width + W - 1) / W * W;  // columns of the widened V: whole vectors
  const int64_t head_size = key_blocks * BLOCK_N * (n.width + padded), group = n.heads / n.kv_heads;
  float* const packed = scratch(n.batch * n.kv_heads * head_size);
  const int threads = threads_for(n.batch * n.heads * n.queries * n.keys / W * n.width / W, GRAIN / (W * W));
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(static)
    for (int64_t task = 0; task < n.batch * n.kv_heads * key_blocks; task++) {
      const int64_t block = task % key_blocks, head = task / key_blocks, first = block * BLOCK_N;
      float *kt = packed + head * head_size + first * n.width,
            *wide = packed + head * head_size + key_blocks * BLOCK_N * n.width + first * padded;
      const T* from_k = (const T*)k.data + head / n.kv_heads * k.batch + head % n.kv_heads * k.head + first * k.row;
      const T* from_v = (const T*)v.data + head / n.kv_heads * v.batch + head % n.kv_heads * v.head + first * v.row;
      for (int64_t j = 0; j < BLOCK_N; j++)
        for (int64_t d = 0; d < n.width; d++)
          kt[d * BLOCK_N + j] = first + j < n.keys ? widen(from_k[j * k.row + d]) : 0.0f;
      for (int64_t j = 0; j < std::min<int64_t>(BLOCK_N, n.keys - first); j++)
        for (int64_t d = 0; d < padded; d += W)
          store(wide + j * padded + d, load(from_v + j * v.row + d, n.width - d, 0.0f));
    }

    std::unique_ptr<float[]> own(new float[BLOCK_M * (n.width + BLOCK_N + padded + 2)]());
    float *query = own.get(), *s = query + BLOCK_M * n.width, *o = s + BLOCK_M * BLOCK_N,
          *high = o + BLOCK_M * padded, *total = high + BLOCK_M;
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < n.batch * n.heads * query_blocks; task++) {
      const int64_t head = task % (n.batch * n.heads), b = head / n.heads, h = head % n.heads;
      const int64_t block = query_blocks - 1 - task / (n.batch * n.heads);  // the longest walks first
      const int64_t first = block * BLOCK_M, rows = std::min<int64_t>(BLOCK_M, n.queries - first);
      const float *kt = packed + (b * n.kv_heads + h / group) * head_size,
                  *wide = kt + key_blocks * BLOCK_N * n.width;
      const T* from = (const T*)q.data + b * q.batch + h * q.head + first * q.row;
      for (int64_t i = 0; i < rows; i++)
        for (int64_t d = 0; d < n.width; d += W)
          store(query + i * n.width + d, load(from + i * q.row + d, n.width - d, 0.0f) * sm_scale, n.width - d);
      std::fill(o, high, 0.0f);
      std::fill(high, total, -INF);
      std::fill(total, total + BLOCK_M, 0.0f);

      const int64_t limit = causal ? std::min(n.keys, first + rows) : n.keys;
      for (int64_t start = 0; start < limit; start += BLOCK_N) {
        product(s, BLOCK_N, query, n.width, kt + start * n.width, BLOCK_N, rows, BLOCK_N, n.width, false);
        for (int64_t i = 0; i < rows; i++) {
          const int64_t visible = (causal ? std::min(n.keys, first + i + 1) : n.keys) - start;
          const int64_t seen = std::max<int64_t>(0, std::min<int64_t>(BLOCK_N, visible));
          const float scale = weigh(s + i * BLOCK_N, seen, high[i], total[i]);
          for (int64_t d = 0; d < padded && scale != 1.0f; d += W)
            store(o + i * padded + d, load(o + i * padded + d) * scale);
        }
        product(o, padded, s, BLOCK_N, wide + start * padded, padded, rows, padded,
                std::min<int64_t>(BLOCK_N, limit - start), true);
      }
      T* to = out + (head * n.queries + first) * n.width;
      for (int64_t i = 0; i < rows; i++)
        for (int64_t d = 0; d < n.width; d += W)
          store(to + i * n.width + d, load(o + i * padded + d) * (1.0f / total[i]), n.width - d);
    }
  }
}

extern "C" void flash_attention(void* out, const void* q, const void* k, const void* v, const int64_t* strides,
                                const int64_t* sizes, int causal, float sm_scale, int dtype) {
  static_assert(BLOCK_M % MR == 0 && BLOCK_N % W == 0, "blocks are whole tiles");
  const View views[3] = {{q, strides[0], strides[1], strides[2]},
                         {k, strides[3], strides[4], strides[5]},
                         {v, strides[6], strides[7], strides[8]}};
  const Sizes n = {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5]};
  with_dtype(dtype, [&](auto t) {
    using T = decltype(t);
    attention<T>((T*)out, views[0], views[1], views[2], n, causal, sm_scale);
  });
}
"""

flash_attention = bind(
    compile_cpp(CPP_PRELUDE + SOURCE, {"BLOCK_M": BLOCK_M, "BLOCK_N": BLOCK_N, "MR": MR, "GRAIN": GRAIN}),
    "flash_attention",
    *(PTR, PTR, PTR, PTR, I64 * 9, I64 * 6, INT, FLOAT, INT),
)


def kernel_fn(
    Q: torch.Tensor, K: torch.Tensor, V: torch.Tensor, causal: bool = True, sm_scale: float | None = None
) -> torch.Tensor:
    # heads are often views into [B, S, H, D]: any strides will do but the last
    Q, K, V = (t if t.stride(-1) == 1 else t.contiguous() for t in (Q, K, V))
    batch, heads, queries, width = Q.shape
    kv_heads, keys = K.shape[1:3]
    if not keys:
        return torch.zeros(Q.shape, dtype=Q.dtype)
    out = torch.empty(Q.shape, dtype=Q.dtype)
    if out.numel():
        strides = (I64 * 9)(*Q.stride()[:3], *K.stride()[:3], *V.stride()[:3])
        sizes = (I64 * 6)(batch, heads, kv_heads, queries, keys, width)
        scale = width**-0.5 if sm_scale is None else sm_scale
        flash_attention(ptr(out), ptr(Q), ptr(K), ptr(V), strides, sizes, causal, scale, dtype_code(Q))
    return out
