"""RMSNorm over the last dimension: y = x / sqrt(mean(x^2) + eps) * weight, row by row.

Memory bound: ideally x is read once and y written once. A row stays in the cache between its two passes: the sum of
squares, then the result.
"""

import torch

from autokernel_rt import CPP_PRELUDE, FLOAT, I64, INT, PTR, bind, compile_cpp, dtype_code, ptr

KERNEL_TYPE = "rmsnorm"
BACKEND = "cpp"

UNROLL = 4  # tune: 1 2 4 8
GRAIN = 16384  # tune: 2048 8192 16384 32768 131072
PREFETCH = 0  # tune: 0 1 2

SOURCE = r"""
template <class T> static void rmsnorm_row(T* y, const T* x, const T* weight, int64_t n, float eps) {
  vf square[UNROLL] = {};
  for_row<UNROLL>(n, [&](int u, int64_t c, int64_t lanes) {
    const vf v = load(x + c, lanes, 0.0f);
    square[u] += v * v;
  });
  for (int u = 1; u < UNROLL; u++) square[0] += square[u];
  const float rstd = 1.0f / std::sqrt(sum(square[0]) / n + eps);

  for_row<UNROLL>(n, [&](int, int64_t c, int64_t lanes) {
    if (PREFETCH) __builtin_prefetch(x + c + PREFETCH * n);  // the row that the next pass over memory begins with
    store(y + c, load(x + c, lanes, 0.0f) * rstd * load(weight + c, lanes, 0.0f), lanes);
  });
}

extern "C" void rmsnorm(void* y, const void* x, const void* weight, int64_t rows, int64_t n, float eps, int dtype) {
  with_dtype(dtype, [&](auto t) {
    using T = decltype(t);
    const int threads = threads_for(rows * n, GRAIN);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = 0; row < rows; row++)
      rmsnorm_row<T>((T*)y + row * n, (const T*)x + row * n, (const T*)weight, n, eps);
  });
}
"""

rmsnorm = bind(
    compile_cpp(CPP_PRELUDE + SOURCE, {"UNROLL": UNROLL, "GRAIN": GRAIN, "PREFETCH": PREFETCH}),
    "rmsnorm",
    *(PTR, PTR, PTR, I64, I64, FLOAT, INT),
)


def kernel_fn(x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    x, weight = x.contiguous(), weight.to(x.dtype).contiguous()
    y = torch.empty_like(x)
    if y.numel():
        cols = x.shape[-1]
        rmsnorm(ptr(y), ptr(x), ptr(weight), x.numel() // cols, cols, eps, dtype_code(x))
    return y
