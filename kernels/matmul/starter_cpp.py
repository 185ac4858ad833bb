"""matmul: C[M, N] = A[M, K] @ B[K, N], accumulated in fp32.

Bound by arithmetic: 2 M N K operations, ideally two fused multiply-adds of a full vector each cycle and core. Both
operands are packed in fp32, A in panels of MR rows and B in panels of NR = 16 NV columns; a tile of MR x NR sums stays
in registers while KC elements of its two panels stream from the first and second level cache. With few rows B is read
in place.
"""

import torch

from autokernel_rt import CPP_PRELUDE, I64, INT, PTR, bind, compile_cpp, dtype_code, ptr

KERNEL_TYPE = "matmul"
BACKEND = "cpp"

MR = 12  # tune: 6 8 12 14
NV = 2  # tune: 1 2 3
KC = 256  # tune: 128 256 384 512
MC = 168  # tune: 84 168 336
NC = 2048  # tune: 512 1024 2048 4096
SMALL_M = 4  # tune: 0 1 4 8
DIRECT_M = 128  # tune: 0 32 128 512
GRAIN = 65536  # tune: 16384 65536 262144

SOURCE = r"""
constexpr int NR = NV * W;
struct Strided {
  int64_t row, col;
};

// One panel: out[k][width] = x[i][k] for i < width, zero from i = count on.
template <class T> static void pack(float* out, const T* x, int64_t i_stride, int64_t k_stride, int width,
                                    int64_t count, int64_t depth) {
  if (i_stride == 1 && count >= width && width % W == 0) {
    for (int64_t k = 0; k < depth; k++)
      for (int c = 0; c < width; c += W) store(out + k * width + c, load(x + k * k_stride + c));
    return;
  }
  // by 64 x width values: what is being filled stays in the first-level cache
  for (int64_t start = 0; start < depth; start += 64)
    for (int64_t i = 0; i < width; i++)
      for (int64_t k = start; k < std::min<int64_t>(depth, start + 64); k++)
        out[k * width + i] = i < count ? widen(x[i * i_stride + k * k_stride]) : 0.0f;
}

// The inner kernel, apart so that all sums get registers: s = the product of two panels.
__attribute__((noinline)) static void panel_product(vf (&out)[MR][NV], const float* a, const float* b, int64_t b_row,
                                                    int64_t depth) {
  vf s[MR][NV] = {};
  for (int64_t k = 0; k < depth; k++, a += MR, b += b_row) {
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

// One tile, of which `rows` x `cols` exist. partial: fp32 sums so far; c: the result once the whole depth is done.
template <class T> static void tile(const float* a, const float* b, int64_t b_row, int64_t depth, T* c,
                                    float* partial, int64_t n, int64_t rows, int64_t cols, bool first, bool last) {
  vf s[MR][NV];
  panel_product(s, a, b, b_row, depth);
  for (int64_t i = 0; i < std::min<int64_t>(rows, MR); i++, c += n, partial += n)
    for (int64_t v = 0; v * W < std::min<int64_t>(cols, NR); v++) {
      if (!first) s[i][v] += load(partial + v * W, cols - v * W, 0.0f);
      if (last) store(c + v * W, s[i][v], cols - v * W);
      else store(partial + v * W, s[i][v], cols - v * W);
    }
}

// A few rows: B is read once in place, packing it would cost more than the product.
template <class T>
static void few_rows(T* c, const T* a, Strided as, const T* b, int64_t b_row, int64_t M, int64_t N, int64_t K) {
  const int threads = threads_for(N * K, GRAIN);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t j = 0; j < N; j += 4 * W)
    for (int64_t i = 0; i < M; i++) {
      vf s[4] = {};
      for (int64_t k = 0; k < K; k++) {
        const vf av = splat(widen(a[i * as.row + k * as.col]));
        const T* row = b + k * b_row + j;
        if (j + 4 * W <= N) {
#pragma GCC unroll 4
          for (int v = 0; v < 4; v++) s[v] += av * load(row + v * W);
        } else {
          for (int64_t v = 0; j + v * W < N; v++) s[v] += av * load(row + v * W, N - j - v * W, 0.0f);
        }
      }
      for (int64_t v = 0; v < 4 && j + v * W < N; v++) store(c + i * N + j + v * W, s[v], N - j - v * W);
    }
}

template <class T> static void product(T* c, float* partial, const T* a, Strided as, const T* b, Strided bs,
                                       int64_t M, int64_t N, int64_t K) {
  if (M <= SMALL_M && bs.col == 1) return few_rows(c, a, as, b, bs.row, M, N, K);
  const int64_t a_panels = (M + MR - 1) / MR, blocks = (a_panels * MR + MC - 1) / MC;
  const bool direct = M <= DIRECT_M && bs.col == 1 && std::is_same<T, float>::value;
  float* const packed_b = scratch((a_panels * MR + std::min<int64_t>(N, NC) + NR) * K + W);
  float* const packed_a = packed_b + (std::min<int64_t>(N, NC) + NR) * K;
  const int threads = threads_for(M * N / W * K / W, GRAIN / (W * W));
#pragma omp parallel num_threads(threads)
  for (int64_t jc = 0; jc < N; jc += NC) {
    const int64_t width = std::min<int64_t>(NC, N - jc), b_panels = (width + NR - 1) / NR;
    if (jc == 0) {
#pragma omp for schedule(static) nowait
      for (int64_t p = 0; p < a_panels; p++)
        pack(packed_a + p * MR * K, a + p * MR * as.row, as.row, as.col, MR, M - p * MR, K);
    }
#pragma omp for schedule(static)
    for (int64_t p = 0; p < b_panels; p++)
      if (!direct || (p + 1) * NR > width)
        pack(packed_b + p * NR * K, b + (jc + p * NR) * bs.col, bs.col, bs.row, NR, width - p * NR, K);
    // one barrier before this loop and one after it, whatever K is: waking a thread costs as much as a small product
#pragma omp for schedule(dynamic) collapse(2)
    for (int64_t block = 0; block < blocks; block++)
      for (int64_t p = 0; p < b_panels; p++)
        for (int64_t k = 0; k == 0 || k < K; k += KC)
          for (int64_t i = block * MC; i < std::min<int64_t>(M, (block + 1) * MC); i += MR) {
            const int64_t j = jc + p * NR, at = i * N + j;
            const bool in_place = direct && (p + 1) * NR <= width;
            const float *a_panel = packed_a + i * K + k * MR, *b_panel = packed_b + p * NR * K + k * NR;
            if (in_place) b_panel = (const float*)b + k * bs.row + j;
            tile(a_panel, b_panel, in_place ? bs.row : NR, std::min<int64_t>(KC, K - k), c + at, partial + at, N,
                 M - i, N - j, k == 0, k + KC >= K);
          }
  }
}

extern "C" void matmul(void* c, float* partial, const void* a, int64_t a_row, int64_t a_col, const void* b,
                       int64_t b_row, int64_t b_col, int64_t M, int64_t N, int64_t K, int dtype) {
  static_assert(MC % MR == 0, "a block is whole panels");
  with_dtype(dtype, [&](auto t) {
    using T = decltype(t);
    product((T*)c, partial, (const T*)a, Strided{a_row, a_col}, (const T*)b, Strided{b_row, b_col}, M, N, K);
  });
}
"""

DEFINES = {"MR": MR, "NV": NV, "KC": KC, "MC": MC - MC % MR, "NC": NC - NC % (16 * NV)}
DEFINES |= {"SMALL_M": SMALL_M, "DIRECT_M": DIRECT_M, "GRAIN": GRAIN}
matmul = bind(
    compile_cpp(CPP_PRELUDE + SOURCE, DEFINES),
    "matmul",
    *(PTR, PTR, PTR, I64, I64, PTR, I64, I64, I64, I64, I64, INT),
)


def kernel_fn(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    (m, k), n = A.shape, B.shape[1]
    c = torch.empty((m, n), dtype=A.dtype)
    # sums over more than one KC need a place to wait in fp32: C itself when it is fp32
    partial = c if A.dtype == torch.float32 or k <= KC else torch.empty((m, n))
    if c.numel():
        matmul(ptr(c), ptr(partial), ptr(A), *A.stride(), ptr(B), *B.stride(), m, n, k, dtype_code(A))
    return c
