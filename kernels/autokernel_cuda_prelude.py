"""The CUDA C++ that every CUDA kernel starts with: element types, 16-byte words, ragged rows, reductions over threads.

Needs -DDTYPE=0|1|2 (float, bf16, fp16: `dtype_code` of the tensor), which makes T. Includes nothing, so that NVRTC
needs no toolkit and compiles in a fraction of a second. What depends on the hardware comes first, for CUDA and for HIP.
"""

CUDA_PRELUDE = r"""
typedef long long i64;
typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned short u16;
struct fp16 {
  u16 bits;
};
struct bf16 {
  u16 bits;
};
#if DTYPE == 0
typedef float T;
#elif DTYPE == 1
typedef bf16 T;
#else
typedef fp16 T;
#endif
#ifndef DEVICE
#define DEVICE __device__ __forceinline__
#endif

// bf16 is the upper half of a float; rounded to nearest even, and a NaN stays one.
DEVICE float widen(float x) { return x; }
DEVICE float widen(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
DEVICE u16 upper_half(float x) {
  const u32 u = __float_as_uint(x);
  return x == x ? (u + 0x7fff + ((u >> 16) & 1)) >> 16 : (u >> 16) | 0x40;
}

#if defined(__HIP__) || defined(__HIPCC_RTC__)
#define DYNAMIC_SHARED(name) extern __shared__ __attribute__((aligned(1024))) unsigned char name[]
DEVICE float widen(fp16 x) { return (float)__builtin_bit_cast(_Float16, x.bits); }
DEVICE void narrow(float x, fp16& y) { y.bits = __builtin_bit_cast(u16, (_Float16)x); }
DEVICE void narrow(float x, bf16& y) { y.bits = upper_half(x); }
DEVICE float shfl_xor(float x, int mask) { return __shfl_xor(x, mask, 32); }  // halves of a wave count as warps
DEVICE void sync_warp() { __builtin_amdgcn_wave_barrier(); }
DEVICE float exp2_of(float x) { return exp2f(x); }
DEVICE void renew(uint4& r) { asm volatile("" : "+v"(r.x), "+v"(r.y), "+v"(r.z), "+v"(r.w)); }
DEVICE uint4 load16_here(const void* p) { return *(const uint4*)p; }
#elif defined(__CUDACC__)
#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
DEVICE float widen(fp16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}
DEVICE void narrow(float x, fp16& y) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); }
#if __CUDA_ARCH__ >= 800
DEVICE void narrow(float x, bf16& y) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); }
#else
DEVICE void narrow(float x, bf16& y) { y.bits = upper_half(x); }
#endif
DEVICE float shfl_xor(float x, int mask) { return __shfl_xor_sync(~0u, x, mask); }
DEVICE void sync_warp() { __syncwarp(); }
// A word read before counts as new, so that the compiler unpacks it again instead of keeping its floats in registers.
DEVICE void renew(uint4& r) { asm volatile("" : "+r"(r.x), "+r"(r.y), "+r"(r.z), "+r"(r.w)); }
// A load of what nobody writes that stays where it stands, before the branches and uses that follow.
DEVICE uint4 load16_here(const void* p) {
  uint4 r;
  asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w) : "l"(p));
  return r;
}
DEVICE float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#endif

DEVICE void narrow(float x, float& y) { y = x; }

// exp to about 2 ulp in fp32; for 16-bit results the hardware's own is exact enough.
DEVICE float exp_of(float x) { return DTYPE == 0 ? expf(x) : __expf(x); }

constexpr int VEC = 16 / sizeof(T);  // elements of a 16-byte word, the widest access there is
#if DTYPE == 0
constexpr u32 NEG_INF = 0xff800000;
#elif DTYPE == 1
constexpr u32 NEG_INF = 0xff80ff80;
#else
constexpr u32 NEG_INF = 0xfc00fc00;
#endif
#define INF __uint_as_float(0x7f800000)
constexpr float LOWEST = -3.0e38f;  // a maximum to start from: -inf would give inf - inf where all is -inf

union Word {
  uint4 raw;
  T element[VEC];
};
DEVICE uint4 filled(u32 bits) { return uint4{bits, bits, bits, bits}; }
DEVICE uint4 load16(const void* p) { return *(const uint4*)p; }
DEVICE void unpack(uint4 raw, float (&f)[VEC]) {
  Word w;
  w.raw = raw;
#pragma unroll
  for (int j = 0; j < VEC; j++) f[j] = widen(w.element[j]);
}
DEVICE uint4 pack(const float (&f)[VEC]) {
  Word w;
#pragma unroll
  for (int j = 0; j < VEC; j++) narrow(f[j], w.element[j]);
  return w.raw;
}

// Where a row begins between two words, it is counted from the word's beginning: `base` is aligned, and the row's own
// elements are [head, end) from there. Even: every row is whole words, so head is 0 and end a multiple of VEC.
template <int Even> DEVICE int head_of(i64 row, int n) { return Even ? 0 : (int)(row * n % VEC); }

// The word that starts at `at`. Elements outside of the row are those of `fill`; nothing outside is read.
template <int Even> DEVICE uint4 fetch(const T* base, int at, int head, int end, u32 fill) {
  Word w;
  w.raw = filled(fill);
  if (Even ? at < end : at >= head && at + VEC <= end) return load16(base + at);
  if (!Even && at < end) {
#pragma unroll
    for (int j = 0; j < VEC; j++)
      if (at + j >= head && at + j < end) w.element[j] = base[at + j];
  }
  return w.raw;
}
template <int Even> DEVICE void put(T* base, int at, int head, int end, uint4 raw) {
  if (Even ? at < end : at >= head && at + VEC <= end) {
    *(uint4*)(base + at) = raw;
  } else if (!Even && at < end) {
    Word w;
    w.raw = raw;
#pragma unroll
    for (int j = 0; j < VEC; j++)
      if (at + j >= head && at + j < end) base[at + j] = w.element[j];
  }
}

// A vector that all rows share, such as a norm's weight: word `at` of a row with this head.
template <int Even> DEVICE uint4 fetch_shared(const T* x, int at, int head, int end) {
  if (Even) return at < end ? load16(x + at) : filled(0);
  Word w;
  w.raw = filled(0);
#pragma unroll
  for (int j = 0; j < VEC; j++)
    if (at + j >= head && at + j < end) w.element[j] = x[at + j - head];
  return w.raw;
}

struct Sum {
  DEVICE static float of(float a, float b) { return a + b; }
};
struct Max {  // drops NaN
  DEVICE static float of(float a, float b) { return fmaxf(a, b); }
};
struct MaxOrNan {
  DEVICE static float of(float a, float b) { return a > b || a != a ? a : b; }
};

// Folds x over Threads neighbouring threads (a power of two) in a fixed order; each of them gets the result. With more
// than a warp all threads of the block must take part, and between two calls with one Slot there must be a barrier.
template <int Threads, class Op, int Slot> DEVICE float across(float x) {
#pragma unroll
  for (int mask = (Threads < 32 ? Threads : 32) / 2; mask; mask /= 2) x = Op::of(x, shfl_xor(x, mask));
  if (Threads <= 32) return x;
  constexpr int WARPS = Threads > 32 ? Threads / 32 : 1;
  __shared__ float of_warp[32];
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;
  __syncthreads();
  x = of_warp[threadIdx.x / Threads * WARPS + threadIdx.x % WARPS];
#pragma unroll
  for (int mask = WARPS / 2; mask; mask /= 2) x = Op::of(x, shfl_xor(x, mask));
  return x;
}
#line 1 "kernel.cu"
"""
