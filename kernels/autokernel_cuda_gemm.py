"""The CUDA C++ that products start with, after CUDA_PRELUDE: tensor cores for 16-bit types, ordinary cores for fp32.

With -DB_TRANS=0|1 CUDA_TENSOR has a block's product too, of -DBLOCK_M x -DBLOCK_N (multiples of 64): tiles arrive in
shared memory by cp.async and are multiplied from there, by wgmma with -DWGMMA=1 for sm_90a, else by mma.sync.
"""


def _wgmma(n: int) -> str:
    """One warpgroup's d[64, n] += a[64, 16] b[16, n], for the accumulators' count that names n."""
    count = n // 2
    sums = ", ".join(f"%{i}" for i in range(count))
    operands = ", ".join(f'"+f"(d[{i}])' for i in range(count))
    return f"""
template <int TransB> DEVICE void wgmma(float (&d)[{count}], u64 a, u64 b) {{
  asm volatile("{{ .reg .pred p; setp.ne.b32 p, %{count + 2}, 0; wgmma.mma_async.sync.aligned.m64n{n}k16.f32." MMA_TYPE
               " {{{sums}}}, %{count}, %{count + 1}, p, 1, 1, 0, %{count + 3}; }}"
               : {operands}
               : "l"(a), "l"(b), "r"(1), "n"(TransB));
}}"""


CUDA_TENSOR = (
    r"""
#if WGMMA && defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define USE_WGMMA 1
#else
#define USE_WGMMA 0
#endif
#if DTYPE == 1
#define MMA_TYPE "bf16.bf16"
#else
#define MMA_TYPE "f16.f16"
#endif

#if defined(__CUDACC__)
DEVICE u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }
// 16 bytes into shared memory, some time before cp_async_wait; zeros where !valid, and then nothing is read.
DEVICE void cp_async(u32 to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0) : "memory");
}
DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int Pending> DEVICE void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}
// Four 8 x 8 matrices; lane l gives the address of row l % 8 of matrix l / 8.
DEVICE void ldmatrix(u32 (&r)[4], u32 address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
DEVICE void ldmatrix_trans(u32 (&r)[4], u32 address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
// d[16, 8] += a[16, 16] b[16, 8]
DEVICE void mma(float* d, const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." MMA_TYPE
               ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#if USE_WGMMA
// What ordinary stores and cp.async wrote becomes visible to wgmma; before the barrier, in the writing thread.
DEVICE void fence_for_wgmma() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
DEVICE void wgmma_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int Pending> DEVICE void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}
// Keeps the compiler from moving what reads or writes accumulators to where wgmma still writes them.
template <int N> DEVICE void hold(float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}"""
    + "".join(_wgmma(n) for n in (64, 128, 256))
    + r"""
#endif
#endif
#if !USE_WGMMA
DEVICE void fence_for_wgmma() {}
template <int Pending> DEVICE void wgmma_wait() {}
template <int N> DEVICE void hold(float (&)[N]) {}
#endif

DEVICE u32 pair(float low, float high) {
  Word w;
  narrow(low, w.element[0]);
  narrow(high, w.element[1]);
  return w.raw.x;
}

// A tile in shared memory is rows of 64 elements, 128 bytes, whose eight 16-byte words are permuted by the row's
// number: then neither ldmatrix nor wgmma meets a bank conflict. Tiles begin at multiples of 1024 bytes.
DEVICE int swizzled(int row, int word) { return row * 128 + ((word ^ (row & 7)) << 4); }

#ifdef B_TRANS
constexpr int BLOCK_K = 64, THREADS = 2 * BLOCK_M, WARP_TILES = BLOCK_N / 32, FRAGMENTS = BLOCK_N / 8;
constexpr int A_BYTES = BLOCK_M * 128, STAGE_BYTES = A_BYTES + BLOCK_N * 128;

// Rows x 64 elements x[row][k]; zeros outside of rows x depth. Row i of them is at x + i * stride.
template <int Rows> DEVICE void load_rows(u32 to, const T* x, i64 stride, i64 rows, i64 depth) {
  const int word = threadIdx.x % 8, first = threadIdx.x / 8;
#pragma unroll
  for (int i = 0; i < Rows; i += THREADS / 8) {
    const bool valid = first + i < rows && word * 8 < depth;
    cp_async(to + swizzled(first + i, word), valid ? x + (first + i) * stride + word * 8 : x, valid);
  }
}
// 64 x Cols elements x[k][col], kept as Cols / 64 tiles of 64 rows.
template <int Cols> DEVICE void load_columns(u32 to, const T* x, i64 stride, i64 depth, i64 cols) {
  constexpr int WORDS = Cols / 8;
  const int word = threadIdx.x % WORDS, first = threadIdx.x / WORDS;
#pragma unroll
  for (int k = 0; k < BLOCK_K; k += THREADS / WORDS) {
    const bool valid = first + k < depth && word * 8 < cols;
    const u32 at = to + word / 8 * (BLOCK_K * 128) + swizzled(first + k, word % 8);
    cp_async(at, valid ? x + (first + k) * stride + word * 8 : x, valid);
  }
}

// The block's product lies in fragments of 16 x 8, four sums each in every thread of a warp: rows lane / 4 and 8 more,
// columns lane % 4 * 2 and 1 more. Fragment f and partner(f) are BLOCK_N / 2 columns apart.
#if USE_WGMMA
DEVICE int fragment_row(int f) { return threadIdx.x / 32 * 16; }
DEVICE int fragment_col(int f) { return f * 8; }
constexpr bool has_partner(int f) { return f < FRAGMENTS / 2; }
constexpr int partner(int f) { return f + FRAGMENTS / 2; }

DEVICE u64 descriptor(u32 address, u32 leading, u32 stride) {  // 1 << 62: words permuted within 128 bytes
  return (u64)((address & 0x3ffff) >> 4) | (u64)(leading >> 4) << 16 | (u64)(stride >> 4) << 32 | (u64)1 << 62;
}
// Starts acc += a b for one stage. Neither may change before wgmma_wait says so.
DEVICE void multiply(float (&acc)[BLOCK_N / 2], u32 a, u32 b) {
  a += __shfl_sync(~0u, threadIdx.x / 128, 0) * (64 * 128);  // the shuffle tells the compiler that a warp agrees
  hold(acc);
  wgmma_begin();
#pragma unroll
  for (int k = 0; k < BLOCK_K / 16; k++)
    wgmma<B_TRANS>(acc, descriptor(a + k * 32, 16, 1024),
                   B_TRANS ? descriptor(b + k * 2048, BLOCK_K * 128, 1024) : descriptor(b + k * 32, 16, 1024));
  wgmma_commit();
}
#else
DEVICE int warp_col(int tile) {  // a warp has columns in both halves of the block
  const int warp = threadIdx.x / 32 % 4, half = WARP_TILES / 2;
  return warp * (BLOCK_N / 8) + (tile < half ? tile * 8 : BLOCK_N / 2 + (tile - half) * 8);
}
DEVICE int fragment_row(int f) { return threadIdx.x / 128 * 64 + f / WARP_TILES * 16; }
DEVICE int fragment_col(int f) { return warp_col(f % WARP_TILES); }
constexpr bool has_partner(int f) { return f % WARP_TILES < WARP_TILES / 2; }
constexpr int partner(int f) { return f + WARP_TILES / 2; }

DEVICE void multiply(float (&acc)[BLOCK_N / 2], u32 a, u32 b) {
  const int lane = threadIdx.x % 32, row = threadIdx.x / 128 * 64;
#pragma unroll
  for (int k = 0; k < BLOCK_K / 16; k++) {
    u32 left[4][4];
#pragma unroll
    for (int i = 0; i < 4; i++) ldmatrix(left[i], a + swizzled(row + i * 16 + lane % 16, k * 2 + lane / 16));
#pragma unroll
    for (int tile = 0; tile < WARP_TILES; tile += 2) {  // lanes 16 and up address the second tile
      const int col = warp_col(tile + lane / 16);
      u32 right[4];
      if (B_TRANS) ldmatrix_trans(right, b + col / 64 * (BLOCK_K * 128) + swizzled(k * 16 + lane % 16, col % 64 / 8));
      else ldmatrix(right, b + swizzled(col + lane % 8, k * 2 + lane / 8 % 2));
#pragma unroll
      for (int i = 0; i < 4; i++) {
        mma(acc + (i * WARP_TILES + tile) * 4, left[i], right[0], right[1]);
        mma(acc + (i * WARP_TILES + tile + 1) * 4, left[i], right[2], right[3]);
      }
    }
  }
}
#endif

// A finished tile, BLOCK_M rows of Width + 8 elements in shared memory (8 against bank conflicts), to c, of which
// rows x cols elements lie inside.
template <int Width> DEVICE void write_tile(T* c, i64 stride, const T* tile, i64 rows, i64 cols) {
  if (stride % 8 == 0) {
    for (int i = threadIdx.x; i < BLOCK_M * Width / 8; i += THREADS) {
      const int row = i / (Width / 8), col = i % (Width / 8) * 8;
      if (row < rows && col < cols) *(uint4*)(c + row * stride + col) = load16(tile + row * (Width + 8) + col);
    }
  } else {
    for (int i = threadIdx.x; i < BLOCK_M * Width; i += THREADS) {
      const int row = i / Width, col = i % Width;
      if (row < rows && col < cols) c[row * stride + col] = tile[row * (Width + 8) + col];
    }
  }
}
#endif
#line 1 "kernel.cu"
"""
)

CUDA_FFMA = r"""
// A block of 256 threads makes SIDE * 16 squared sums, a thread SIDE x SIDE of them: rows and columns spot(i), groups
// of four with 64 between them, so that its reads of shared memory are 16 bytes wide and free of bank conflicts.
constexpr int SIDE = FFMA_BLOCK / 16, FFMA_K = 16;
DEVICE int spot(int i, int thread) { return i / 4 * 64 + thread * 4 + i % 4; }
DEVICE int my_row(int i) { return spot(i, threadIdx.x / 16); }
DEVICE int my_col(int i) { return spot(i, threadIdx.x % 16); }

// sum = a b over `depth`, where a(row, k) and b(k, col) read one element of the block's operands, 0 outside.
// AlongK: neighbouring threads read b along k, else along its columns.
template <bool AlongK, class A, class B> DEVICE void ffma_tile(float (&sum)[SIDE][SIDE], i64 depth, A a, B b) {
  alignas(16) __shared__ float as[2][FFMA_K][FFMA_BLOCK + 4], bs[2][FFMA_K][FFMA_BLOCK + 4];
  const int t = threadIdx.x, across = AlongK ? t / 16 : t % FFMA_BLOCK, along = AlongK ? t % 16 : t / FFMA_BLOCK;
  constexpr int ACROSS_STEP = AlongK ? 16 : 0, ALONG_STEP = AlongK ? 0 : 256 / FFMA_BLOCK;
  float next_a[SIDE], next_b[SIDE];
  for (i64 k = 0, step = 0; k <= depth + FFMA_K - 1; k += FFMA_K, step++) {
    // the loads of the next step are in flight while this one is computed
    if (k > 0) {
      float (*to_a)[FFMA_BLOCK + 4] = as[step % 2], (*to_b)[FFMA_BLOCK + 4] = bs[step % 2];
#pragma unroll
      for (int i = 0; i < SIDE; i++) {
        to_a[t % 16][t / 16 + i * 16] = next_a[i];
        to_b[along + i * ALONG_STEP][across + i * ACROSS_STEP] = next_b[i];
      }
      __syncthreads();
    }
    if (k < depth) {
#pragma unroll
      for (int i = 0; i < SIDE; i++) {
        next_a[i] = a(t / 16 + i * 16, k + t % 16);
        next_b[i] = b(k + along + i * ALONG_STEP, across + i * ACROSS_STEP);
      }
    }
    if (k == 0) continue;
#pragma unroll
    for (int kk = 0; kk < FFMA_K; kk++) {
      alignas(16) float x[SIDE], y[SIDE];
#pragma unroll
      for (int i = 0; i < SIDE; i += 4) {
        *(float4*)(x + i) = *(const float4*)&as[step % 2][kk][my_row(i)];
        *(float4*)(y + i) = *(const float4*)&bs[step % 2][kk][my_col(i)];
      }
#pragma unroll
      for (int i = 0; i < SIDE; i++)
#pragma unroll
        for (int j = 0; j < SIDE; j++) sum[i][j] += x[i] * y[j];
    }
  }
}
#line 1 "kernel.cu"
"""
