// The part of CUDA that the kernels use, on the CPU: put this folder first in the include path and
// the kernels compile as plain C++. One OS thread; every CUDA thread is a fiber that runs until it
// has to wait. Which ready fiber runs next is drawn from a seed, so a missing barrier shows up as
// a wrong result, and a barrier that some threads never reach as a deadlock.
#pragma once

#include <stdint.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define COGIT_CUDA_EMULATION 1
#define __global__
#define __device__
#define __grid_constant__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }

namespace emulation {

constexpr int kWarpLanes = 32;
constexpr size_t kStackBytes = 64 * 1024;
// Fills fresh shared memory: a NaN, so that reading what nothing wrote spoils the result.
constexpr unsigned char kPoison = 0xff;

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "[cuda emulation] %s\n", what);
  std::exit(2);
}

struct Fiber;

struct Barrier {
  int expected = 0;
  int arrived = 0;
  uint64_t phase = 0;
  std::vector<Fiber*> waiting;
};

struct Warp {
  Barrier barrier;
  uint32_t exchange[2][kWarpLanes];  // two, so that a fast lane does not overwrite what others read
};

struct Block {
  dim3 index;
  int rank = 0;  // in its cluster
  std::vector<float4> shared;
  Barrier barrier;
  std::vector<Warp> warps;
};

struct Cluster {
  Barrier barrier;
  std::vector<std::unique_ptr<Block>> blocks;
};

struct Fiber {
  dim3 thread;
  Block* block = nullptr;
  Cluster* cluster = nullptr;
  Warp* warp = nullptr;
  unsigned exchanges = 0;
  uint64_t cluster_phase = 0;
  bool arrived_at_cluster = false;
  uint64_t priority = 0;
  bool turns_slow = false;
  bool started = false;
  ucontext_t context;
  std::jmp_buf point;
  std::vector<char> stack;
};

struct Machine {
  dim3 grid;
  dim3 block;
  uint64_t random = 1;
  const std::function<void()>* kernel = nullptr;
  Fiber* current = nullptr;
  std::vector<Fiber*> ready;
  std::vector<Fiber*> late;  // run only when no other thread can
  int running = 0;
  uint64_t slow_phase = 0;
  std::vector<std::pair<const char*, const char*>> readable;  // empty: everything
  std::jmp_buf scheduler;
};

inline Machine& machine() {
  static Machine the_machine;
  return the_machine;
}

inline Fiber& current() { return *machine().current; }

// ---- switching ----

// The context functions serve only to start a fiber: switching by them costs two system calls.
inline void yield() {
  if (_setjmp(current().point) == 0) _longjmp(machine().scheduler, 1);
}

inline uint64_t draw(uint64_t below) {
  uint64_t& x = machine().random;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return (x >> 11) % below;
}

inline void make_ready(Fiber* fiber) {
  Machine& m = machine();
  const uint64_t phase = fiber->block->barrier.phase + fiber->cluster->barrier.phase;
  (fiber->turns_slow && phase >= m.slow_phase ? m.late : m.ready).push_back(fiber);
}

inline void arrive(Barrier& barrier) {
  if (++barrier.arrived < barrier.expected) return;
  barrier.arrived = 0;
  ++barrier.phase;
  for (Fiber* fiber : barrier.waiting) make_ready(fiber);
  barrier.waiting.clear();
}

inline void wait(Barrier& barrier, uint64_t phase) {
  if (barrier.phase != phase) return;
  barrier.waiting.push_back(&current());
  yield();
}

inline void arrive_and_wait(Barrier& barrier) {
  const uint64_t phase = barrier.phase;
  arrive(barrier);
  wait(barrier, phase);
}

inline void fiber_main() {
  (*machine().kernel)();
  --machine().running;
  _longjmp(machine().scheduler, 1);
}

inline void resume(Fiber* fiber) {
  machine().current = fiber;
  if (_setjmp(machine().scheduler) != 0) return;
  if (fiber->started) _longjmp(fiber->point, 1);
  fiber->started = true;
  getcontext(&fiber->context);
  fiber->context.uc_stack.ss_sp = fiber->stack.data();
  fiber->context.uc_stack.ss_size = fiber->stack.size();
  fiber->context.uc_link = nullptr;
  makecontext(&fiber->context, fiber_main, 0);
  setcontext(&fiber->context);
}

// The best of a few drawn: threads of low priority fall far behind, which a fair draw, where all
// advance at about one pace, would hardly ever show.
inline Fiber* take_next() {
  Machine& m = machine();
  std::vector<Fiber*>& ready = m.ready.empty() ? m.late : m.ready;
  size_t best = draw(ready.size());
  for (int i = 0; i < 8; ++i) {
    const size_t other = draw(ready.size());
    if (ready[other]->priority > ready[best]->priority) best = other;
  }
  std::swap(ready[best], ready.back());
  Fiber* next = ready.back();
  ready.pop_back();
  return next;
}

// ---- launching ----

inline void run_cluster(unsigned first_block, int blocks, size_t shared_bytes,
                        std::vector<std::unique_ptr<Fiber>>& fibers) {
  Machine& m = machine();
  const int threads = static_cast<int>(m.block.x);
  Cluster cluster;
  cluster.barrier.expected = blocks * threads;
  // Slow and fast are whole warps, or single threads; or half of a block turns slow behind some
  // barrier: a block slow from the start is merely the last in everything.
  enum { kWarps, kThreads, kHalfABlock };
  m.slow_phase = draw(6);
  const uint64_t kind = draw(3);
  const auto slow_block = static_cast<int>(draw(static_cast<uint64_t>(blocks)));
  uint64_t priority = 0;
  m.ready.clear();
  for (int rank = 0; rank < blocks; ++rank) {
    cluster.blocks.push_back(std::make_unique<Block>());
    Block& block = *cluster.blocks.back();
    block.index = {first_block + static_cast<unsigned>(rank), 1, 1};
    block.rank = rank;
    block.shared.resize((shared_bytes + 15) / 16);
    std::memset(static_cast<void*>(block.shared.data()), kPoison, block.shared.size() * 16);
    block.barrier.expected = threads;
    block.warps.resize(static_cast<size_t>((threads + kWarpLanes - 1) / kWarpLanes));
    for (int t = 0; t < threads; ++t) {
      const auto at = static_cast<size_t>(rank * threads + t);
      if (at == fibers.size()) {
        fibers.push_back(std::make_unique<Fiber>());
        fibers.back()->stack.resize(kStackBytes);
      }
      Fiber& fiber = *fibers[at];
      fiber.thread = {static_cast<unsigned>(t), 0, 0};
      fiber.block = &block;
      fiber.cluster = &cluster;
      fiber.warp = &block.warps[static_cast<size_t>(t / kWarpLanes)];
      ++fiber.warp->barrier.expected;
      if (kind != kWarps || t % kWarpLanes == 0) priority = draw(uint64_t{1} << 40);
      const bool slow = kind == kHalfABlock && rank == slow_block && draw(2) == 0;
      fiber.priority = priority;
      fiber.turns_slow = slow;
      fiber.exchanges = 0;
      fiber.arrived_at_cluster = false;
      fiber.started = false;
      make_ready(&fiber);
    }
  }
  m.running = blocks * threads;
  while (!m.ready.empty() || !m.late.empty()) resume(take_next());
  if (m.running != 0) fail("deadlock: some threads wait at a barrier that others never reach");
}

// Makes loads from elsewhere fail, as far as they go through an intrinsic.
inline void allow(const void* begin, int64_t bytes) {
  const char* from = static_cast<const char*>(begin);
  machine().readable.emplace_back(from, from + bytes);
}

// Clusters run one after another, in an order drawn from the seed.
inline void launch(int64_t blocks, int threads, int64_t shared_bytes, int cluster_blocks,
                   uint64_t seed, const std::function<void()>& kernel) {
  static std::vector<std::unique_ptr<Fiber>> fibers;
  Machine& m = machine();
  m.grid = {static_cast<unsigned>(blocks), 1, 1};
  m.block = {static_cast<unsigned>(threads), 1, 1};
  m.random = seed * 2 + 0x9e3779b97f4a7c15u;
  m.kernel = &kernel;
  std::vector<unsigned> order;
  for (int64_t b = 0; b < blocks; b += cluster_blocks) order.push_back(static_cast<unsigned>(b));
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[draw(i)]);
  for (const unsigned first : order) {
    run_cluster(first, cluster_blocks, static_cast<size_t>(shared_bytes), fibers);
  }
}

inline float* dynamic_shared() { return reinterpret_cast<float*>(current().block->shared.data()); }

inline uint32_t exchange(uint32_t bits, int source) {
  Fiber& fiber = current();
  uint32_t* slots = fiber.warp->exchange[fiber.exchanges++ % 2];
  slots[fiber.thread.x % kWarpLanes] = bits;
  arrive_and_wait(fiber.warp->barrier);
  return slots[source];
}

template <class To, class From>
To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "bits of one size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

}  // namespace emulation

#define threadIdx (emulation::current().thread)
#define blockIdx (emulation::current().block->index)
#define blockDim (emulation::machine().block)
#define gridDim (emulation::machine().grid)

// ---- barriers, shuffles, atomics ----

inline void __syncthreads() { emulation::arrive_and_wait(emulation::current().block->barrier); }
inline void __syncwarp() { emulation::arrive_and_wait(emulation::current().warp->barrier); }
inline void __threadfence() {}

inline float __shfl_sync(unsigned, float value, int source) {
  return emulation::same_bits<float>(
      emulation::exchange(emulation::same_bits<uint32_t>(value), source % emulation::kWarpLanes));
}
inline float __shfl_xor_sync(unsigned mask, float value, int offset) {
  return __shfl_sync(mask, value, static_cast<int>(threadIdx.x) ^ offset);
}

inline unsigned atomicAdd(unsigned* at, unsigned value) {
  const unsigned before = *at;
  *at += value;
  return before;
}

// ---- loads and arithmetic ----

template <class T>
T __ldg(const T* from) {
  // The device faults on an address that is not a multiple of the size; so does this.
  if (reinterpret_cast<uintptr_t>(from) % sizeof(T) != 0) emulation::fail("misaligned load");
  const char* begin = reinterpret_cast<const char*>(from);
  const auto& readable = emulation::machine().readable;
  const bool allowed = std::any_of(readable.begin(), readable.end(), [&](const auto& range) {
    return begin >= range.first && begin + sizeof(T) <= range.second;
  });
  if (!readable.empty() && !allowed) emulation::fail("load from outside the call's memory");
  return *from;
}
template <class T>
T __ldcs(const T* from) {
  return __ldg(from);
}
template <class T>
T __ldcg(const T* from) {
  return __ldg(from);
}

inline int min(int a, int b) { return a < b ? a : b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __uint_as_float(unsigned bits) { return emulation::same_bits<float>(bits); }
inline unsigned __float_as_uint(float value) { return emulation::same_bits<unsigned>(value); }
