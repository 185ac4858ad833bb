"""Sum over one dimension, accumulated in fp32.

Memory bound: x is read once. The tensor is seen as [outer, n, inner] with n summed away: along contiguous memory where
inner is 1, else down the columns, a stripe of STRIPE vectors at a time. Sums of CHUNK elements are added up apart:
short chains of additions round less than one long chain.
"""

import torch

from autokernel_rt import CPP_PRELUDE, I64, INT, PTR, bind, compile_cpp, dtype_code, ptr

KERNEL_TYPE = "reduce"
BACKEND = "cpp"

UNROLL = 8  # tune: 2 4 8 16
GRAIN = 32768  # tune: 8192 32768 131072
CHUNK = 4096  # tune: 1024 4096 16384
STRIPE = 4  # tune: 1 2 4 8

SOURCE = r"""
template <class T> static float sum_row(const T* x, int64_t n) {
  vf total = {};
  for (int64_t start = 0; start < n; start += CHUNK) {
    vf part[UNROLL] = {};
    const T* from = x + start;
    for_row<UNROLL>(std::min<int64_t>(CHUNK, n - start),
                    [&](int u, int64_t c, int64_t lanes) { part[u] += load(from + c, lanes, 0.0f); });
    for (int u = 1; u < UNROLL; u++) part[0] += part[u];
    total += part[0];
  }
  return sum(total);
}

// Columns [0, width) of an [n, inner] block.
template <class T> static void sum_columns(T* y, const T* x, int64_t n, int64_t inner, int64_t width) {
  vf total[STRIPE] = {};
  for (int64_t start = 0; start < n; start += CHUNK / W) {
    const int64_t stop = std::min<int64_t>(n, start + CHUNK / W);
    vf part[STRIPE] = {};
    if (width == STRIPE * W) {
      for (int64_t row = start; row < stop; row++)
#pragma GCC unroll 16
        for (int v = 0; v < STRIPE; v++) part[v] += load(x + row * inner + v * W);
    } else {
      for (int64_t row = start; row < stop; row++)
        for (int64_t c = 0; c < width; c += W) part[c / W] += load(x + row * inner + c, width - c, 0.0f);
    }
    for (int v = 0; v < STRIPE; v++) total[v] += part[v];
  }
  for (int64_t c = 0; c < width; c += W) store(y + c, total[c / W], width - c);
}

extern "C" void reduce(void* y, const void* x, int64_t outer, int64_t n, int64_t inner, int dtype) {
  with_dtype(dtype, [&](auto t) {
    using T = decltype(t);
    const int threads = threads_for(outer * n * inner, GRAIN);
    if (inner == 1) {
#pragma omp parallel for schedule(static) num_threads(threads)
      for (int64_t row = 0; row < outer; row++) store((T*)y + row, splat(sum_row((const T*)x + row * n, n)), 1);
      return;
    }
    const int64_t stripes = (inner + STRIPE * W - 1) / (STRIPE * W);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < outer * stripes; i++) {
      const int64_t first = i % stripes * STRIPE * W, block = i / stripes;
      const T* from = (const T*)x + block * n * inner + first;
      sum_columns<T>((T*)y + block * inner + first, from, n, inner, std::min<int64_t>(STRIPE * W, inner - first));
    }
  });
}
"""

reduce = bind(
    compile_cpp(CPP_PRELUDE + SOURCE, {"UNROLL": UNROLL, "GRAIN": GRAIN, "CHUNK": CHUNK, "STRIPE": STRIPE}),
    "reduce",
    *(PTR, PTR, I64, I64, I64, INT),
)


def kernel_fn(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    x, dim = x.contiguous(), dim % x.dim()
    outer, n, inner = x.shape[:dim].numel(), x.shape[dim], x.shape[dim + 1 :].numel()
    y = torch.empty(x.shape[:dim] + x.shape[dim + 1 :], dtype=x.dtype)
    if y.numel():
        reduce(ptr(y), ptr(x), outer, n, inner, dtype_code(x))
    return y
