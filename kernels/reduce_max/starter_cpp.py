"""Maximum over one dimension; a NaN anywhere in it is the result, as in torch.amax.

Memory bound: x is read once. The tensor is seen as [outer, n, inner] with n searched: along contiguous memory where
inner is 1, else down the columns, a stripe of STRIPE vectors at a time.
"""

import torch

from autokernel_rt import CPP_PRELUDE, I64, INT, PTR, bind, compile_cpp, dtype_code, ptr

KERNEL_TYPE = "reduce_max"
BACKEND = "cpp"

UNROLL = 8  # tune: 2 4 8 16
GRAIN = 32768  # tune: 8192 32768 131072
STRIPE = 4  # tune: 1 2 4 8

SOURCE = r"""
// Once NaN, `a` stays: every comparison with it is false.
static inline vf greater_or_nan(vf a, vf b) { return (b > a) | (b != b) ? b : a; }

template <class T> static float max_row(const T* x, int64_t n) {
  vf high[UNROLL];
  for (int u = 0; u < UNROLL; u++) high[u] = splat(-INF);
  for_row<UNROLL>(
      n, [&](int u, int64_t c, int64_t lanes) { high[u] = greater_or_nan(high[u], load(x + c, lanes, -INF)); });
  for (int u = 1; u < UNROLL; u++) high[0] = greater_or_nan(high[0], high[u]);
  return across(high[0], greater_or_nan);
}

// Columns [0, width) of an [n, inner] block.
template <class T> static void max_columns(T* y, const T* x, int64_t n, int64_t inner, int64_t width) {
  vf high[STRIPE];
  for (int v = 0; v < STRIPE; v++) high[v] = splat(-INF);
  if (width == STRIPE * W) {
    for (int64_t row = 0; row < n; row++)
#pragma GCC unroll 16
      for (int v = 0; v < STRIPE; v++) high[v] = greater_or_nan(high[v], load(x + row * inner + v * W));
  } else {
    for (int64_t row = 0; row < n; row++)
      for (int64_t c = 0; c < width; c += W)
        high[c / W] = greater_or_nan(high[c / W], load(x + row * inner + c, width - c, 0.0f));
  }
  for (int64_t c = 0; c < width; c += W) store(y + c, high[c / W], width - c);
}

extern "C" void reduce_max(void* y, const void* x, int64_t outer, int64_t n, int64_t inner, int dtype) {
  with_dtype(dtype, [&](auto t) {
    using T = decltype(t);
    const int threads = threads_for(outer * n * inner, GRAIN);
    if (inner == 1) {
#pragma omp parallel for schedule(static) num_threads(threads)
      for (int64_t row = 0; row < outer; row++) store((T*)y + row, splat(max_row((const T*)x + row * n, n)), 1);
      return;
    }
    const int64_t stripes = (inner + STRIPE * W - 1) / (STRIPE * W);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < outer * stripes; i++) {
      const int64_t first = i % stripes * STRIPE * W, block = i / stripes;
      const T* from = (const T*)x + block * n * inner + first;
      max_columns<T>((T*)y + block * inner + first, from, n, inner, std::min<int64_t>(STRIPE * W, inner - first));
    }
  });
}
"""

reduce_max = bind(
    compile_cpp(CPP_PRELUDE + SOURCE, {"UNROLL": UNROLL, "GRAIN": GRAIN, "STRIPE": STRIPE}),
    "reduce_max",
    *(PTR, PTR, I64, I64, I64, INT),
)


def kernel_fn(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    x, dim = x.contiguous(), dim % x.dim()
    outer, n, inner = x.shape[:dim].numel(), x.shape[dim], x.shape[dim + 1 :].numel()
    y = torch.empty(x.shape[:dim] + x.shape[dim + 1 :], dtype=x.dtype)
    if y.numel() and not n:
        return x.amax(dim)  # raises: nothing has no maximum
    if y.numel():
        reduce_max(ptr(y), ptr(x), outer, n, inner, dtype_code(x))
    return y
