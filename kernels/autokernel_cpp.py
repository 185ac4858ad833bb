"""The C++ that every C++ kernel starts with: 16-lane vectors over fp32, bf16 and fp16 memory, rows, exp, threads.

Vectors are spelled out rather than left to the compiler, so that a reduction has as many accumulators as it says.
"""

CPP_PRELUDE = r"""
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <omp.h>

using fp16 = _Float16;
struct bf16 {
  uint16_t bits;
};
constexpr int W = 16;  // lanes of a vector; where registers are narrower g++ splits it
constexpr float INF = __builtin_inff();
typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint32_t vu __attribute__((vector_size(64)));
typedef uint16_t vh __attribute__((vector_size(32)));
typedef short vs __attribute__((vector_size(32)));

template <class To, class From> static inline To bits_as(From x) { return __builtin_bit_cast(To, x); }
template <class V> static inline V raw(const void* p) {
  V v;
  memcpy(&v, p, sizeof v);
  return v;
}

static inline float widen(float x) { return x; }
static inline float widen(fp16 x) { return (float)x; }
static inline float widen(bf16 x) { return bits_as<float>((uint32_t)x.bits << 16); }
static inline vf load(const float* p) { return raw<vf>(p); }
static inline void store(float* p, vf v) { memcpy(p, &v, sizeof v); }
static inline void store(bf16* p, vf v) {  // to nearest even; a NaN stays one, its rounding carry could make it Inf
#ifdef __AVX512BF16__  // one instruction for seven; it flushes subnormals
  const auto h = __builtin_ia32_cvtneps2bf16_v16sf(v);
#else
  const vu u = (vu)v, rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  const vh h = __builtin_convertvector(v == v ? rounded : (u >> 16) | 0x40, vh);
#endif
  memcpy(p, &h, sizeof h);
}
#ifdef __AVX512F__  // g++ 12 takes these apart by halves or lanes, and <immintrin.h> costs 0.3 s of compiling
static inline vf load(const bf16* p) { return (vf)((vu)__builtin_ia32_pmovzxwd512_mask(raw<vs>(p), vi{}, -1) << 16); }
static inline vf load(const fp16* p) { return __builtin_ia32_vcvtph2ps512_mask(raw<vs>(p), vf{}, -1, 4); }
static inline void store(fp16* p, vf v) {
  const vs h = __builtin_ia32_vcvtps2ph512_mask(v, 0, vs{}, -1);
  memcpy(p, &h, sizeof h);
}
#else
static inline vf load(const bf16* p) { return (vf)(__builtin_convertvector(raw<vh>(p), vu) << 16); }
static inline vf load(const fp16* p) {
  vf v;
  for (int l = 0; l < W; l++) v[l] = p[l];
  return v;
}
static inline void store(fp16* p, vf v) {
  for (int l = 0; l < W; l++) p[l] = (fp16)v[l];
}
#endif

// The first `lanes` elements only, the others `fill`: never reads or writes past them.
template <class T> static inline vf load(const T* p, int64_t lanes, float fill) {
  if (lanes >= W) return load(p);
  T part[W] = {};
  for (int64_t l = 0; l < lanes; l++) part[l] = p[l];
  vf v = load(part);
  for (int64_t l = lanes; l < W; l++) v[l] = fill;
  return v;
}
template <class T> static inline void store(T* p, vf v, int64_t lanes) {
  if (lanes >= W) return store(p, v);
  T part[W];
  store(part, v);
  for (int64_t l = 0; l < lanes; l++) p[l] = part[l];
}
static inline vf splat(float x) { return x - vf{}; }
static inline vf greater(vf a, vf b) { return a > b ? a : b; }
template <class Join> static inline float across(vf v, Join join) {
  v = join(v, __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  v = join(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
  v = join(v, __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
  return join(v, __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14))[0];
}
static inline float sum(vf v) {
  return across(v, [](vf a, vf b) { return a + b; });
}
static inline float max(vf v) { return across(v, greater); }

// body(u, column, lanes) over a row, U vectors at a time: u picks one of U accumulators, and none waits for another.
template <int U, class Body> static inline void for_row(int64_t n, Body body) {
  int64_t c = 0;
  for (; c + U * W <= n; c += U * W) {
#pragma GCC unroll 16
    for (int u = 0; u < U; u++) body(u, c + u * W, (int64_t)W);
  }
  for (; c < n; c += W) body(0, c, std::min<int64_t>(W, n - c));
}

// exp to 1 ulp for F = float (inside `omp simd` too) or vf. NaN stays NaN. Below the normal numbers it is 0, and above
// 88.37, a little early, inf: one exponent field then holds 2^k, and no lane takes the slow path of subnormals.
template <class U, class F> static inline F exp_as(F x) {
  const auto zero = x < -87.33f;
  F y = zero ? F{} : x;
  y = y > 89.0f ? F{} + 89.0f : y;
  const F magic = F{} + 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer that the low bits then hold
  const F shifted = y * 1.44269504088896341f + magic, n = shifted - magic;
  const F r = (y - n * 0.693145751953125f) - n * 1.42860682030941723212e-6f;
  F p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  p = p * bits_as<F>((bits_as<U>(shifted) + 127) << 23);  // the bits of magic are shifted out
  return zero ? F{} : p;
}
static inline float fast_exp(float x) { return exp_as<uint32_t>(x); }
static inline vf fast_exp(vf x) { return exp_as<vu>(x); }

// Memory for packed operands. It grows and stays: fresh pages for each call would cost more than a small product does.
static inline float* scratch(int64_t floats) {
  static thread_local struct Buffer {
    float* data = nullptr;
    int64_t size = 0;
    ~Buffer() { free(data); }
  } buffer;
  if (buffer.size < floats) {
    free(buffer.data);
    buffer.size = (floats + W - 1) / W * W;
    buffer.data = (float*)aligned_alloc(64, buffer.size * sizeof(float));
  }
  return buffer.data;
}

// Threads worth waking for `work` elements: waking one costs as much as some thousands of them.
static inline int threads_for(int64_t work, int64_t grain) {
  return (int)std::max<int64_t>(1, std::min<int64_t>(work / grain, omp_get_max_threads()));
}
template <class Body> static inline void with_dtype(int code, Body body) {
  if (code == 0) body(float{});
  else if (code == 1) body(bf16{});
  else body(fp16{});
}
#line 1 "kernel.cpp"
"""
