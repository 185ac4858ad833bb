// Runs a CUDA kernel on a CPU: each thread of a block is a fiber, warp operations follow the tables of the PTX manual.
//
// Stricter than a GPU, to catch what a GPU forgives now and then: cp.async lands as late as it may, and its place holds
// NaN until then; wgmma reads its operands both when it starts and when it is waited for, and they must agree; shared
// memory starts as NaN; a barrier that not all threads reach is an error.
#define DTYPE 0
#include "cuda_on_cpu.h"
#include <array>
#include <ucontext.h>
#include <vector>

alignas(1024) unsigned char dynamic_shared[1 << 18];
dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace {
struct Group {  // threads that wait for each other: a warp, or the block
  int size = 0, arrived = 0;
  unsigned generation = 0;
};
struct Copy {
  uint32_t to;
  const void* from;
  bool valid;
};
struct Product {
  float* d;
  int n, warp;
  uint64_t a, b;
  bool trans_b, bf16;
  std::vector<float> sum;  // what it came to when it started
};
template <class Item> struct Groups {  // asynchronous work in the order of its groups
  std::vector<Item> open;
  std::vector<std::vector<Item>> closed;
  void commit() { closed.push_back(std::exchange(open, {})); }
  template <class Finish> void finish(size_t pending, Finish one) {
    while (closed.size() > pending) {
      for (const Item& item : closed.front()) one(item);
      closed.erase(closed.begin());
    }
  }
  bool idle() const {
    return open.empty() && std::all_of(closed.begin(), closed.end(), [](const auto& group) { return group.empty(); });
  }
};
struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(1 << 16);
  unsigned index = 0, generation = 0, meetings = 0;
  Group* waits = nullptr;
  bool done = false, unfenced = false;
  Groups<Copy> copies;
  Groups<Product> products;
};
typedef std::array<std::array<uint32_t, 6>, 32> Lanes;

std::vector<Fiber> fibers;
std::vector<Group> warps;
std::vector<std::array<Lanes, 2>> brought;  // by the lanes of each warp, to this meeting and to the one before
Group block;
Fiber* current;
ucontext_t scheduler;
const char* failure;
void (*entry)(void**);
void** parameters;

int lane() { return current->index % 32; }
int warp() { return current->index / 32; }

void leave() { swapcontext(&current->context, &scheduler); }
void stop(const char* why) {
  failure = why;
  leave();
}
void wait_for(Group& group) {
  if (++group.arrived == group.size) {
    group.arrived = 0;
    group.generation++;
    return;
  }
  current->waits = &group;
  current->generation = group.generation;
  leave();
}
// Each lane sees what all lanes bring. No lane is two meetings ahead of another, so two places are enough.
template <size_t N> const Lanes& meet(const uint32_t (&values)[N]) {
  Lanes& all = brought[warp()][current->meetings++ % 2];
  std::copy(values, values + N, all[lane()].begin());
  sync_warp();
  return all;
}
float element(uint16_t bits, bool bf16) { return bf16 ? as<float>((uint32_t)bits << 16) : (float)as<_Float16>(bits); }

// An element of a wgmma operand, permuted within 128 bytes: address bits 4 to 6 are xored with bits 7 to 9.
// K-major: 8 rows of 128 bytes, then `stride`. Else 64 elements across in 8 rows of k, then `leading` and `stride`.
float operand(uint64_t descriptor, int across, int k, bool trans, bool bf16) {
  const uint32_t start = (descriptor & 0x3fff) << 4, leading = (descriptor >> 16 & 0x3fff) << 4;
  const uint32_t stride = (descriptor >> 32 & 0x3fff) << 4;
  const uint32_t at = trans ? start + across / 64 * leading + across % 64 * 2 + k / 8 * stride + k % 8 * 128
                            : start + across / 8 * stride + across % 8 * 128 + k * 2;
  uint16_t bits;
  memcpy(&bits, dynamic_shared + (at ^ (at >> 7 & 7) << 4), 2);
  return element(bits, bf16);
}
// d[64, n] of a warpgroup: a warp has 16 rows; i holds row l / 4 + 8 (i / 2 % 2), column 8 (i / 4) + 2 (l % 4) + i % 2.
std::vector<float> computed(const Product& p) {
  std::vector<float> sum(p.n / 2);
  for (int i = 0; i < p.n / 2; i++) {
    const int row = p.warp % 4 * 16 + lane() / 4 + 8 * (i / 2 % 2), col = i / 4 * 8 + lane() % 4 * 2 + i % 2;
    for (int k = 0; k < 16; k++) sum[i] += operand(p.a, row, k, false, p.bf16) * operand(p.b, col, k, p.trans_b, p.bf16);
  }
  return sum;
}

void enter() {
  entry(parameters);
  if (!current->copies.idle() || !current->products.idle()) stop("a thread ended before its copies or products did");
  current->done = true;
  leave();
}
bool step_warp(size_t w) {  // is there a lane that could go on?
  bool moved = false;
  for (size_t i = w * 32; i < std::min(fibers.size(), w * 32 + 32) && !failure; i++) {
    Fiber& fiber = fibers[i];
    if (fiber.done || (fiber.waits && fiber.waits->generation == fiber.generation)) continue;
    fiber.waits = nullptr;
    current = &fiber;
    threadIdx = {fiber.index, 0, 0};
    swapcontext(&scheduler, &fiber.context);
    moved = true;
  }
  return moved && !failure;
}
const char* run_block(unsigned threads) {
  fibers.resize(threads);
  warps.assign((threads + 31) / 32, Group{});
  brought.resize(warps.size());
  block = Group{(int)threads};
  memset(dynamic_shared, 0xff, sizeof dynamic_shared);
  for (unsigned i = 0; i < threads; i++) {
    Fiber& fiber = fibers[i];
    fiber.index = i;
    fiber.meetings = 0;
    fiber.waits = nullptr;
    fiber.done = fiber.unfenced = false;
    fiber.copies = {};
    fiber.products = {};
    warps[i / 32].size++;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    makecontext(&fiber.context, enter, 0);
  }
  // a warp goes as far as it can before the next one starts: a missing barrier between them shows
  for (bool moved = true; moved;) {
    moved = false;
    for (size_t i = 0; i < warps.size(); i++) {
      const size_t w = blockIdx.x % 2 ? warps.size() - 1 - i : i;
      while (step_warp(w)) moved = true;
      if (failure) return failure;
    }
  }
  const bool all = std::all_of(fibers.begin(), fibers.end(), [](const Fiber& fiber) { return fiber.done; });
  return all ? nullptr : "a barrier that not all threads reach";
}
}  // namespace

void __syncthreads() { wait_for(block); }
void sync_warp() { wait_for(warps[warp()]); }
uint32_t value_of_lane(uint32_t value, int from) { return meet({value})[from][0]; }

void copy_later(uint32_t to, const void* from, bool valid) {
  if (to % 16 || (valid && (uintptr_t)from % 16)) stop("cp.async of 16 bytes that are not aligned");
  memset(dynamic_shared + to, 0xff, 16);
  current->copies.open.push_back({to, from, valid});
}
void copies_group() { current->copies.commit(); }
void copies_finish(int pending) {
  current->copies.finish(pending, [](const Copy& copy) {
    if (copy.valid) memcpy(dynamic_shared + copy.to, copy.from, 16);
    else memset(dynamic_shared + copy.to, 0, 16);
    current->unfenced = true;
  });
}

// Lane l gets elements 2 (l % 4) and the next of row l / 4 of each matrix; transposed, of its column l / 4.
void load_matrices(uint32_t (&r)[4], uint32_t address, bool trans) {
  if (address % 16) stop("ldmatrix of a row that is not aligned");
  const Lanes& rows = meet({address});
  for (int i = 0; i < 4; i++) {
    uint16_t e[2];
    for (int j = 0; j < 2; j++) {
      const int along = lane() % 4 * 2 + j, row = trans ? along : lane() / 4, col = trans ? lane() / 4 : along;
      memcpy(&e[j], dynamic_shared + rows[i * 8 + row][0] + col * 2, 2);
    }
    r[i] = e[0] | (uint32_t)e[1] << 16;
  }
}

// mma.m16n8k16. a: register i holds row l / 4 + 8 (i % 2), k = 2 (l % 4) + 8 (i / 2) and the next. b: register i holds
// k = 2 (l % 4) + 8 i and the next, column l / 4. d: i holds row l / 4 + 8 (i / 2), column 2 (l % 4) + i % 2.
void multiply_warp(float* d, const uint32_t (&a)[4], uint32_t b0, uint32_t b1, bool bf16) {
  const Lanes& all = meet({a[0], a[1], a[2], a[3], b0, b1});
  for (int i = 0; i < 4; i++) {
    const int row = lane() / 4 + 8 * (i / 2), col = lane() % 4 * 2 + i % 2;
    for (int k = 0; k < 16; k++) {
      const uint32_t left = all[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2], right = all[col * 4 + k % 8 / 2][4 + k / 8];
      d[i] += element((uint16_t)(left >> k % 2 * 16), bf16) * element((uint16_t)(right >> k % 2 * 16), bf16);
    }
  }
}

void multiply_warpgroup(float* d, int n, uint64_t a, uint64_t b, bool trans_b, bool bf16) {
  if (a >> 62 != 1 || b >> 62 != 1) stop("a wgmma descriptor that does not say 128-byte permutation");
  for (const Fiber& fiber : fibers)
    if (fiber.unfenced) stop("wgmma after cp.async without a fence");
  Product p = {d, n, warp(), a, b, trans_b, bf16, {}};
  p.sum = computed(p);
  current->products.open.push_back(p);
}
void products_fence() { current->unfenced = false; }
void products_group() { current->products.commit(); }
void products_finish(int pending) {
  current->products.finish(pending, [](const Product& p) {
    const std::vector<float> late = computed(p);
    if (memcmp(late.data(), p.sum.data(), late.size() * sizeof(float))) stop("shared memory changed while wgmma read it");
    for (size_t i = 0; i < late.size(); i++) p.d[i] += late[i];
  });
}

const char* run(unsigned blocks, unsigned threads, void (*call)(void**), void** arguments) {
  entry = call;
  parameters = arguments;
  blockDim = {threads, 1, 1};
  gridDim = {blocks, 1, 1};
  failure = nullptr;
  for (unsigned i = 0; i < blocks; i++) {
    blockIdx = {i, 0, 0};
    if (run_block(threads)) return failure ? failure : "a barrier that not all threads reach";
  }
  return nullptr;
}
