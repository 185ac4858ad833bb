"""linear: y[M, N] = x[M, K] @ weight[N, K]^T + bias, accumulated in fp32: nn.Linear's layout.

Bound by arithmetic where M is large: x is packed in panels of MR rows and weight in panels of NR = 16 NV of its rows,
both in fp32; a tile of MR x NR sums stays in registers while KC elements of its two panels stream from the first and
second level cache. Bound by reading weight where M is small: then rows are multiplied where they lie.
"""

import torch

from autokernel_rt import CPP_PRELUDE, I64, INT, PTR, bind, compile_cpp, dtype_code, ptr

KERNEL_TYPE = "linear"
BACKEND = "cpp"

MR = 12  # tune: 6 8 12 14
NV = 2  # tune: 1 2 3
KC = 256  # tune: 128 256 384 512
MC = 168  # tune: 84 168 336
NC = 2048  # tune: 512 1024 2048 4096
SMALL_M = 32  # tune: 0 4 8 16 32 64
GRAIN = 65536  # tune: 16384 65536 262144

SOURCE = r"""
constexpr int NR = NV * W;

// One panel: out[k][width] = row i of x at k for i < width, zero from i = count on.
template <class T> static void pack(float* out, const T* x, int width, int64_t count, int64_t K) {
  // by 64 x width values: what is being filled stays in the first-level cache
  for (int64_t start = 0; start < K; start += 64)
    for (int64_t i = 0; i < width; i++)
      for (int64_t k = start; k < std::min<int64_t>(K, start + 64); k++)
        out[k * width + i] = i < count ? widen(x[i * K + k]) : 0.0f;
}

// The inner kernel, apart so that all sums get registers: s = the product of two panels.
__attribute__((noinline)) static void panel_product(vf (&out)[MR][NV], const float* a, const float* b,
                                                    int64_t depth) {
  vf s[MR][NV] = {};
  for (int64_t k = 0; k < depth; k++, a += MR, b += NR) {
    vf row[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) row[v] = load(b + v * W);
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++)
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) s[i][v] += splat(a[i]) * row[v];
  }
  memcpy(out, s, sizeof s);
}

// One tile, of which `rows` x `cols` exist. partial: fp32 sums so far; y: the result once the whole depth is done.
template <class T> static void tile(const float* a, const float* b, int64_t depth, T* y, float* partial,
                                    const T* bias, int64_t n, int64_t rows, int64_t cols, bool first, bool last) {
  vf s[MR][NV];
  panel_product(s, a, b, depth);
  for (int64_t i = 0; i < std::min<int64_t>(rows, MR); i++, y += n, partial += n)
    for (int64_t v = 0; v * W < std::min<int64_t>(cols, NR); v++) {
      if (!first) s[i][v] += load(partial + v * W, cols - v * W, 0.0f);
      if (last && bias) s[i][v] += load(bias + v * W, cols - v * W, 0.0f);
      if (last) store(y + v * W, s[i][v], cols - v * W);
      else store(partial + v * W, s[i][v], cols - v * W);
    }
}

// R x 4 dot products along contiguous rows: nothing is packed, which pays while x has few rows.
template <int R, class T>
static void dots(T* y, const T* x, const T* weight, const T* bias, int64_t N, int64_t K, int64_t cols) {
  vf s[R][4] = {};
  const T* w[4];
  for (int j = 0; j < 4; j++) w[j] = weight + std::min<int64_t>(j, cols - 1) * K;
  for_row<1>(K, [&](int, int64_t k, int64_t lanes) {
    vf row[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) row[j] = load(w[j] + k, lanes, 0.0f);
#pragma GCC unroll 4
    for (int i = 0; i < R; i++) {
      const vf v = load(x + i * K + k, lanes, 0.0f);
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++) s[i][j] += v * row[j];
    }
  });
  for (int i = 0; i < R; i++)
    for (int j = 0; j < cols; j++) store(y + i * N + j, splat(sum(s[i][j]) + (bias ? widen(bias[j]) : 0.0f)), 1);
}

template <class T>
static void few_rows(T* y, const T* x, const T* weight, const T* bias, int64_t M, int64_t N, int64_t K) {
  const int threads = threads_for(M * N / W * K / W, GRAIN / (W * W));
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t j = 0; j < N; j += 4) {
    const T *w = weight + j * K, *b = bias ? bias + j : nullptr;
    int64_t i = 0;
    for (; i + 4 <= M; i += 4) dots<4>(y + i * N + j, x + i * K, w, b, N, K, std::min<int64_t>(4, N - j));
    for (; i < M; i++) dots<1>(y + i * N + j, x + i * K, w, b, N, K, std::min<int64_t>(4, N - j));
  }
}

template <class T> static void product(T* y, float* partial, const T* x, const T* weight, const T* bias, int64_t M,
                                       int64_t N, int64_t K) {
  if (M <= SMALL_M) return few_rows(y, x, weight, bias, M, N, K);
  const int64_t a_panels = (M + MR - 1) / MR, blocks = (a_panels * MR + MC - 1) / MC;
  float* const packed_b = scratch((a_panels * MR + std::min<int64_t>(N, NC) + NR) * K + W);
  float* const packed_a = packed_b + (std::min<int64_t>(N, NC) + NR) * K;
  const int threads = threads_for(M * N / W * K / W, GRAIN / (W * W));
#pragma omp parallel num_threads(threads)
  for (int64_t jc = 0; jc < N; jc += NC) {
    const int64_t width = std::min<int64_t>(NC, N - jc), b_panels = (width + NR - 1) / NR;
    if (jc == 0) {
#pragma omp for schedule(static) nowait
      for (int64_t p = 0; p < a_panels; p++) pack(packed_a + p * MR * K, x + p * MR * K, MR, M - p * MR, K);
    }
#pragma omp for schedule(static)
    for (int64_t p = 0; p < b_panels; p++)
      pack(packed_b + p * NR * K, weight + (jc + p * NR) * K, NR, width - p * NR, K);
    // one barrier before this loop and one after it, whatever K is: waking a thread costs as much as a small product
#pragma omp for schedule(dynamic) collapse(2)
    for (int64_t block = 0; block < blocks; block++)
      for (int64_t p = 0; p < b_panels; p++)
        for (int64_t k = 0; k == 0 || k < K; k += KC)
          for (int64_t i = block * MC; i < std::min<int64_t>(M, (block + 1) * MC); i += MR) {
            const int64_t j = jc + p * NR, at = i * N + j;
            const float *a_panel = packed_a + i * K + k * MR, *b_panel = packed_b + p * NR * K + k * NR;
            tile(a_panel, b_panel, std::min<int64_t>(KC, K - k), y + at, partial + at, bias ? bias + j : nullptr, N,
                 M - i, N - j, k == 0, k + KC >= K);
          }
  }
}

extern "C" void linear(void* y, float* partial, const void* x, const void* weight, const void* bias, int64_t M,
                       int64_t N, int64_t K, int dtype) {
  static_assert(MC % MR == 0, "a block is whole panels");
  with_dtype(dtype, [&](auto t) {
    using T = decltype(t);
    product((T*)y, partial, (const T*)x, (const T*)weight, (const T*)bias, M, N, K);
  });
}
"""

DEFINES = {"MR": MR, "NV": NV, "KC": KC, "MC": MC - MC % MR, "NC": NC - NC % (16 * NV)}
DEFINES |= {"SMALL_M": SMALL_M, "GRAIN": GRAIN}
linear = bind(compile_cpp(CPP_PRELUDE + SOURCE, DEFINES), "linear", PTR, PTR, PTR, PTR, PTR, I64, I64, I64, INT)


def kernel_fn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    x, weight = x.contiguous(), weight.contiguous()
    bias = None if bias is None else bias.to(x.dtype).contiguous()
    n, k = weight.shape
    y = torch.empty((*x.shape[:-1], n), dtype=x.dtype)
    m = x.shape[:-1].numel()
    # sums over more than one KC need a place to wait in fp32: y itself when it is fp32
    partial = y if x.dtype == torch.float32 or k <= KC or m <= SMALL_M else torch.empty((m, n))
    if y.numel():
        linear(ptr(y), ptr(partial), ptr(x), ptr(weight), ptr(bias), m, n, k, dtype_code(x))
    return y
