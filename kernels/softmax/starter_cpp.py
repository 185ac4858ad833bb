"""softmax over the last dimension: y = exp(x - max(x)) / sum(exp(x - max(x))), row by row.

Memory bound: ideally x is read once and y written once. A row stays in the cache between its passes: the largest value,
then the exponentials (kept in fp32 until their sum is known), then the division.
"""

import torch

from autokernel_rt import CPP_PRELUDE, I64, INT, PTR, bind, compile_cpp, dtype_code, ptr

KERNEL_TYPE = "softmax"
BACKEND = "cpp"

UNROLL = 4  # tune: 1 2 4 8
GRAIN = 8192  # tune: 2048 8192 32768 131072
RECOMPUTE = 0  # tune: 0 1

SOURCE = r"""
#include <memory>

// e: fp32 scratch for one row; y itself when y is fp32.
template <class T> static void softmax_row(T* y, const T* x, float* e, int64_t n) {
  vf high[UNROLL], total[UNROLL] = {};
  for (int u = 0; u < UNROLL; u++) high[u] = splat(-INF);
  for_row<UNROLL>(n, [&](int u, int64_t c, int64_t lanes) { high[u] = greater(high[u], load(x + c, lanes, -INF)); });
  for (int u = 1; u < UNROLL; u++) high[0] = greater(high[0], high[u]);
  const float m = max(high[0]);  // a NaN may be lost here, its exponential below is not

  for_row<UNROLL>(n, [&](int u, int64_t c, int64_t lanes) {
    const vf v = fast_exp(load(x + c, lanes, -INF) - m);
    if (!RECOMPUTE) store(e + c, v, lanes);
    total[u] += lanes < W ? load((const float*)&v, lanes, 0.0f) : v;  // an all -inf row makes NaN of the filled lanes
  });
  for (int u = 1; u < UNROLL; u++) total[0] += total[u];
  const float scale = 1.0f / sum(total[0]);

  for_row<UNROLL>(n, [&](int, int64_t c, int64_t lanes) {
    const vf v = RECOMPUTE ? fast_exp(load(x + c, lanes, -INF) - m) : load(e + c, lanes, 0.0f);
    store(y + c, v * scale, lanes);
  });
}

extern "C" void softmax(void* y, const void* x, int64_t rows, int64_t n, int dtype) {
  with_dtype(dtype, [&](auto t) {
    using T = decltype(t);
    constexpr bool in_place = std::is_same<T, float>::value;
    const int threads = threads_for(rows * n, GRAIN);
#pragma omp parallel num_threads(threads)
    {
      std::unique_ptr<float[]> scratch(in_place || RECOMPUTE ? nullptr : new float[n]);
#pragma omp for schedule(static)
      for (int64_t row = 0; row < rows; row++) {
        T* out = (T*)y + row * n;
        softmax_row<T>(out, (const T*)x + row * n, in_place ? (float*)out : scratch.get(), n);
      }
    }
  });
}
"""

softmax = bind(
    compile_cpp(CPP_PRELUDE + SOURCE, {"UNROLL": UNROLL, "GRAIN": GRAIN, "RECOMPUTE": RECOMPUTE}),
    "softmax",
    *(PTR, PTR, I64, I64, INT),
)


def kernel_fn(x: torch.Tensor) -> torch.Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    if y.numel():
        cols = x.shape[-1]
        softmax(ptr(y), ptr(x), x.numel() // cols, cols, dtype_code(x))
    return y
