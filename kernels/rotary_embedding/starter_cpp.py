"""Rotary embedding of pairs: y[2i] = x[2i] cos[i] - x[2i+1] sin[i], y[2i+1] = x[2i] sin[i] + x[2i+1] cos[i].

Memory bound: x is read once and y written once; cos and sin [S, D/2] are small and stay in the cache. Sixteen pairs at
a time: each cosine is doubled in a register, and the pair's partner fetched by a swap of neighbouring lanes.
"""

import torch

from autokernel_rt import CPP_PRELUDE, I64, INT, PTR, bind, compile_cpp, dtype_code, ptr

KERNEL_TYPE = "rotary_embedding"
BACKEND = "cpp"

UNROLL = 2  # tune: 1 2 4
GRAIN = 16384  # tune: 2048 8192 16384 32768 131072
HEADS_INSIDE = 0  # tune: 0 1

SOURCE = r"""
static inline vf low_twice(vf v) {
  return __builtin_shufflevector(v, v, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
}
static inline vf high_twice(vf v) {
  return __builtin_shufflevector(v, v, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15);
}
static inline vf partners(vf v) {
  return __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
}

template <class T> static void rotate_row(T* y, const T* x, const T* cos, const T* sin, int64_t pairs) {
  const vf sign = {-1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1};
  for_row<UNROLL>(pairs, [&](int, int64_t i, int64_t lanes) {
    const vf c = load(cos + i, lanes, 0.0f), s = load(sin + i, lanes, 0.0f);
    const int64_t low = std::min<int64_t>(W, 2 * lanes), high = 2 * lanes - low;
    const vf a = load(x + 2 * i, low, 0.0f);
    store(y + 2 * i, a * low_twice(c) + partners(a) * sign * low_twice(s), low);
    if (!high) return;
    const vf b = load(x + 2 * i + W, high, 0.0f);
    store(y + 2 * i + W, b * high_twice(c) + partners(b) * sign * high_twice(s), high);
  });
}

extern "C" void rotary(void* y, const void* x, const void* cos, const void* sin, int64_t heads, int64_t length,
                       int64_t pairs, int dtype) {
  with_dtype(dtype, [&](auto t) {
    using T = decltype(t);
    const int threads = threads_for(heads * length * pairs * 2, GRAIN);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < heads * length; i++) {
      // Inside: one position's cosines serve all heads in turn. Outside: x and y are walked in the order of memory.
      const int64_t s = HEADS_INSIDE ? i / heads : i % length, row = HEADS_INSIDE ? i % heads * length + s : i;
      rotate_row<T>((T*)y + row * 2 * pairs, (const T*)x + row * 2 * pairs, (const T*)cos + s * pairs,
                    (const T*)sin + s * pairs, pairs);
    }
  });
}
"""

rotary = bind(
    compile_cpp(CPP_PRELUDE + SOURCE, {"UNROLL": UNROLL, "GRAIN": GRAIN, "HEADS_INSIDE": HEADS_INSIDE}),
    "rotary",
    *(PTR, PTR, PTR, PTR, I64, I64, I64, INT),
)


def kernel_fn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    x, cos, sin = x.contiguous(), cos.to(x.dtype).contiguous(), sin.to(x.dtype).contiguous()
    y = torch.empty_like(x)
    if y.numel():
        length, width = x.shape[-2:]
        rotary(ptr(y), ptr(x), ptr(cos), ptr(sin), x.numel() // (length * width), length, width // 2, dtype_code(x))
    return y
