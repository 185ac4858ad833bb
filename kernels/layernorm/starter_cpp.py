"""LayerNorm over the last dimension: y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias, row by row.

Memory bound: ideally x is read once and y written once. A row stays in the cache between its passes: the mean, then the
variance around it (never as mean(x^2) - mean(x)^2, which an offset ruins), then the result.
"""

import torch

from autokernel_rt import CPP_PRELUDE, FLOAT, I64, INT, PTR, bind, compile_cpp, dtype_code, ptr

KERNEL_TYPE = "layernorm"
BACKEND = "cpp"

UNROLL = 4  # tune: 1 2 4 8
GRAIN = 16384  # tune: 2048 8192 16384 32768 131072
KEEP_FP32 = 1  # tune: 0 1

SOURCE = r"""
#include <memory>

// e: n floats when a half-precision row is to be widened once and not in each pass; else null.
template <class T, bool Keep>
static void layernorm_row(T* y, const T* x, const T* weight, const T* bias, float* e, int64_t n, float eps) {
  vf total[UNROLL] = {}, square[UNROLL] = {};
  for_row<UNROLL>(n, [&](int u, int64_t c, int64_t lanes) {
    const vf v = load(x + c, lanes, 0.0f);
    if (Keep) store(e + c, v, lanes);
    total[u] += v;
  });
  for (int u = 1; u < UNROLL; u++) total[0] += total[u];
  const float mean = sum(total[0]) / n;

  auto row = [&](int64_t c, int64_t lanes, float fill) {
    return Keep ? load(e + c, lanes, fill) : load(x + c, lanes, fill);
  };
  for_row<UNROLL>(n, [&](int u, int64_t c, int64_t lanes) {
    const vf d = row(c, lanes, mean) - mean;  // filled lanes differ from the mean by nothing
    square[u] += d * d;
  });
  for (int u = 1; u < UNROLL; u++) square[0] += square[u];
  const float rstd = 1.0f / std::sqrt(sum(square[0]) / n + eps);

  for_row<UNROLL>(n, [&](int, int64_t c, int64_t lanes) {
    store(y + c, (row(c, lanes, 0.0f) - mean) * rstd * load(weight + c, lanes, 0.0f) + load(bias + c, lanes, 0.0f),
          lanes);
  });
}

extern "C" void layernorm(void* y, const void* x, const void* weight, const void* bias, int64_t rows, int64_t n,
                          float eps, int dtype) {
  with_dtype(dtype, [&](auto t) {
    using T = decltype(t);
    constexpr bool keep = KEEP_FP32 && !std::is_same<T, float>::value;
    const int threads = threads_for(rows * n, GRAIN);
#pragma omp parallel num_threads(threads)
    {
      std::unique_ptr<float[]> e(keep ? new float[n] : nullptr);
#pragma omp for schedule(static)
      for (int64_t row = 0; row < rows; row++) {
        const T* from = (const T*)x + row * n;
        layernorm_row<T, keep>((T*)y + row * n, from, (const T*)weight, (const T*)bias, e.get(), n, eps);
      }
    }
  });
}
"""

layernorm = bind(
    compile_cpp(CPP_PRELUDE + SOURCE, {"UNROLL": UNROLL, "GRAIN": GRAIN, "KEEP_FP32": KEEP_FP32}),
    "layernorm",
    *(PTR, PTR, PTR, PTR, I64, I64, FLOAT, INT),
)


def kernel_fn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    x, weight, bias = x.contiguous(), weight.to(x.dtype).contiguous(), bias.to(x.dtype).contiguous()
    y = torch.empty_like(x)
    if y.numel():
        cols = x.shape[-1]
        layernorm(ptr(y), ptr(x), ptr(weight), ptr(bias), x.numel() // cols, cols, eps, dtype_code(x))
    return y
