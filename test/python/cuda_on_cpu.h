// What CUDA C++ needs to compile as plain C++, and the operations that cuda_on_cpu.cpp carries out for a kernel.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#define __device__
#define __global__
#define __forceinline__
#define __restrict__
#define __launch_bounds__(...)
#define __shared__ static
#define DEVICE inline
#define DYNAMIC_SHARED(name) unsigned char* const name = dynamic_shared + 16 /* so that a kernel has to align it */

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct dim3 {
  unsigned x, y, z;
};
extern dim3 threadIdx, blockIdx, blockDim, gridDim;
extern unsigned char dynamic_shared[];
using std::max;
using std::min;

void __syncthreads();
void sync_warp();
uint32_t value_of_lane(uint32_t value, int lane);
void copy_later(uint32_t to, const void* from, bool valid);
void copies_group();
void copies_finish(int pending);
void load_matrices(uint32_t (&r)[4], uint32_t address, bool trans);
void multiply_warp(float* d, const uint32_t (&a)[4], uint32_t b0, uint32_t b1, bool bf16);
void multiply_warpgroup(float* d, int n, uint64_t a, uint64_t b, bool trans_b, bool bf16);
void products_fence();
void products_group();
void products_finish(int pending);
const char* run(unsigned blocks, unsigned threads, void (*call)(void**), void** arguments);

template <class To, class From> static To as(From x) {
  To y;
  static_assert(sizeof x == sizeof y, "");
  memcpy(&y, &x, sizeof y);
  return y;
}
static float __uint_as_float(uint32_t x) { return as<float>(x); }
static uint32_t __float_as_uint(float x) { return as<uint32_t>(x); }
#define __expf expf
static void renew(uint4&) {}
static uint4 load16_here(const void* p) { return *(const uint4*)p; }
static float exp2_of(float x) { return exp2f(x); }
static float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static float shfl_xor(float x, int mask) { return as<float>(value_of_lane(as<uint32_t>(x), threadIdx.x % 32 ^ mask)); }
static int __shfl_sync(unsigned, int x, int from) { return (int)value_of_lane((uint32_t)x, from); }

struct fp16;
struct bf16;
float widen(fp16 x);
void narrow(float x, fp16& y);
void narrow(float x, bf16& y);

static uint32_t shared_address(const void* p) { return (uint32_t)((const unsigned char*)p - dynamic_shared); }
static void cp_async(uint32_t to, const void* from, bool valid) { copy_later(to, from, valid); }
static void cp_async_commit() { copies_group(); }
template <int PENDING> static void cp_async_wait() {
  static_assert(PENDING >= 0, "");
  copies_finish(PENDING);
}
static void ldmatrix(uint32_t (&r)[4], uint32_t address) { load_matrices(r, address, false); }
static void ldmatrix_trans(uint32_t (&r)[4], uint32_t address) { load_matrices(r, address, true); }
static void mma(float* d, const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  multiply_warp(d, a, b0, b1, DTYPE == 1);
}
#if WGMMA && defined(__CUDA_ARCH_FEAT_SM90_ALL)
static void fence_for_wgmma() { products_fence(); }
static void wgmma_begin() {}
static void wgmma_commit() { products_group(); }
template <int PENDING> static void wgmma_wait() { products_finish(PENDING); }
template <int N> static void hold(float (&)[N]) {}
template <int TRANS_B, int COUNT> static void wgmma(float (&d)[COUNT], uint64_t a, uint64_t b) {
  multiply_warpgroup(d, COUNT * 2, a, b, TRANS_B, DTYPE == 1);
}
#endif

template <class... A, size_t... I> static void invoke(void (*kernel)(A...), void** a, std::index_sequence<I...>) {
  kernel(*(A*)a[I]...);
}
template <class... A> static void invoke(void (*kernel)(A...), void** a) {
  invoke(kernel, a, std::index_sequence_for<A...>{});
}
