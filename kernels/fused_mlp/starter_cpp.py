"""SwiGLU and its kin: y = (activation(x @ w_gate^T) * (x @ w_up^T)) @ w_down^T.

Bound by arithmetic: three products, which the vendor's library does best (PyTorch's linear). What is fused is what lies
between them: activation and product are one pass, in place on the gate's buffer, where eager PyTorch makes two with a
buffer each.
"""

import torch
import torch.nn.functional as F

from autokernel_rt import CPP_PRELUDE, I64, INT, PTR, bind, compile_cpp, dtype_code, ptr

KERNEL_TYPE = "fused_mlp"
BACKEND = "cpp"

UNROLL = 2  # tune: 1 2 4
GRAIN = 16384  # tune: 4096 16384 65536
ROWS = 0  # tune: 0 128 512

SOURCE = r"""
static inline vf times_sigmoid(vf x, vf z) { return x / (1.0f + fast_exp(-z)); }

// The normal distribution to 1.2e-7 relative, in the far left tail too: a Chebyshev fit of erfc(|x| / sqrt 2) / 2.
static inline vf normal_cdf(vf x) {
  const vf z = (x < 0.0f ? -x : x) * 0.70710678118654752f, t = 1.0f / (1.0f + 0.5f * z);
  vf p = t * 0.17087277f - 0.82215223f;
  p = p * t + 1.48851587f;
  p = p * t - 1.13520398f;
  p = p * t + 0.27886807f;
  p = p * t - 0.18628806f;
  p = p * t + 0.09678418f;
  p = p * t + 0.37409196f;
  p = p * t + 1.00002368f;
  p = p * t - 1.26551223f;
  const vf tail = 0.5f * t * fast_exp(p - z * z);
  return x < 0.0f ? tail : 1.0f - tail;
}

template <int A> static inline vf activation(vf x) {
  if (A == 0) return times_sigmoid(x, x);  // silu
  // gelu with tanh: (1 + tanh z) / 2 = sigmoid(2 z)
  if (A == 1) return times_sigmoid(x, 1.5957691216057308f * (x + 0.044715f * (x * x * x)));
  if (A == 2) return x < 0.0f ? vf{} : x;  // relu; NaN stays
  return x * normal_cdf(x);  // gelu_erf
}

template <int A, class T> static void combine(T* gate, const T* up, int64_t n) {
  const int threads = threads_for(n, GRAIN);
  const int64_t share = (n / threads + W) / W * W;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t start = 0; start < n; start += share) {
    T* g = gate + start;
    const T* u = up + start;
    for_row<UNROLL>(std::min(share, n - start), [&](int, int64_t c, int64_t lanes) {
      store(g + c, activation<A>(load(g + c, lanes, 0.0f)) * load(u + c, lanes, 0.0f), lanes);
    });
  }
}

extern "C" void gate_times_up(void* gate, const void* up, int64_t n, int kind, int dtype) {
  with_dtype(dtype, [&](auto t) {
    using T = decltype(t);
    if (kind == 0) combine<0>((T*)gate, (const T*)up, n);
    else if (kind == 1) combine<1>((T*)gate, (const T*)up, n);
    else if (kind == 2) combine<2>((T*)gate, (const T*)up, n);
    else combine<3>((T*)gate, (const T*)up, n);
  });
}
"""

ACTIVATIONS = ("silu", "gelu", "relu", "gelu_erf")
gate_times_up = bind(
    compile_cpp(CPP_PRELUDE + SOURCE, {"UNROLL": UNROLL, "GRAIN": GRAIN}), "gate_times_up", PTR, PTR, I64, INT, INT
)


@torch.no_grad()  # the gate is overwritten under autograd's feet
def kernel_fn(
    x: torch.Tensor,
    w_gate: torch.Tensor,
    w_up: torch.Tensor,
    w_down: torch.Tensor,
    activation: str = "silu",
) -> torch.Tensor:
    kind = ACTIVATIONS.index(activation)
    if ROWS and x.dim() == 2 and x.shape[0] > ROWS:  # in blocks whose gate and up stay in the cache
        y = torch.empty((x.shape[0], w_down.shape[0]), dtype=x.dtype)
        for start in range(0, x.shape[0], ROWS):
            torch.mm(_hidden(x[start : start + ROWS], w_gate, w_up, kind), w_down.t(), out=y[start : start + ROWS])
        return y
    return F.linear(_hidden(x, w_gate, w_up, kind), w_down)


def _hidden(x: torch.Tensor, w_gate: torch.Tensor, w_up: torch.Tensor, kind: int) -> torch.Tensor:
    gate, up = F.linear(x, w_gate).contiguous(), F.linear(x, w_up).contiguous()
    if gate.numel():
        gate_times_up(ptr(gate), ptr(up), gate.numel(), kind, dtype_code(gate))
    return gate
