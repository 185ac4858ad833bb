"""Cross entropy: the mean over rows of log(sum(exp(logits))) - logits[target], in the logits' dtype.

Memory bound: the logits are read once. Each row is one pass in chunks that stay in the first-level cache: a chunk's
maximum, then its exponentials, folded into the row's running (maximum, sum). Rows are added up in one fixed order.
"""

import torch

from autokernel_rt import CPP_PRELUDE, I64, INT, PTR, bind, compile_cpp, dtype_code, ptr

KERNEL_TYPE = "cross_entropy"
BACKEND = "cpp"

CHUNK = 4096  # tune: 1024 2048 4096 8192 65536
UNROLL = 4  # tune: 1 2 4 8
GRAIN = 16384  # tune: 2048 8192 16384 32768 131072

SOURCE = r"""
#include <vector>

template <class T> static float row_loss(const T* x, int64_t n, int64_t target) {
  float m = -INF, total = 0.0f;
  for (int64_t start = 0; start < n; start += CHUNK) {
    const T* part = x + start;
    const int64_t length = std::min<int64_t>(CHUNK, n - start);
    vf high[UNROLL], e[UNROLL] = {};
    for (int u = 0; u < UNROLL; u++) high[u] = splat(m);
    for_row<UNROLL>(
        length, [&](int u, int64_t c, int64_t lanes) { high[u] = greater(high[u], load(part + c, lanes, -INF)); });
    for (int u = 1; u < UNROLL; u++) high[0] = greater(high[0], high[u]);
    const float raised = max(high[0]), base = raised == -INF ? 0.0f : raised;  // a chunk of -inf adds nothing
    for_row<UNROLL>(length,
                    [&](int u, int64_t c, int64_t lanes) { e[u] += fast_exp(load(part + c, lanes, -INF) - base); });
    for (int u = 1; u < UNROLL; u++) e[0] += e[u];
    total = total * fast_exp(m - base) + sum(e[0]);
    m = raised;
  }
  return std::log(total) + (m - widen(x[target]));
}

extern "C" void cross_entropy(void* y, const void* logits, const int64_t* targets, int64_t rows, int64_t n,
                              int dtype) {
  std::vector<float> losses(rows);
  with_dtype(dtype, [&](auto t) {
    using T = decltype(t);
    const int threads = threads_for(rows * n, GRAIN);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = 0; row < rows; row++) {
      const int64_t target = targets[row];
      if (target == -100) losses[row] = 0.0f;  // PyTorch's ignore_index
      else
        losses[row] =
            target < 0 || target >= n ? __builtin_nanf("") : row_loss((const T*)logits + row * n, n, target);
    }
    double total = 0.0;
    int64_t counted = 0;
    for (int64_t row = 0; row < rows; row++) {
      total += losses[row];
      counted += targets[row] != -100;
    }
    store((T*)y, splat((float)(total / counted)), 1);  // no row counted: 0 / 0, NaN as in PyTorch
  });
}
"""

cross_entropy = bind(
    compile_cpp(CPP_PRELUDE + SOURCE, {"CHUNK": CHUNK, "UNROLL": UNROLL, "GRAIN": GRAIN}),
    "cross_entropy",
    *(PTR, PTR, PTR, I64, I64, INT),
)


def kernel_fn(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits, targets = logits.contiguous(), targets.contiguous()
    loss = torch.empty((), dtype=logits.dtype)
    rows, cols = logits.shape
    cross_entropy(ptr(loss), ptr(logits), ptr(targets), rows, cols, dtype_code(logits))
    return loss
