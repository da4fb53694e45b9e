// How one affine call becomes one launch. Plain C++, so that tests can look at it.
//
// A row's columns are cut into kSlices slices. A team of kTeam threads works on a slice, and sums
// over a row are sums of its slices, added in order. On devices with clusters a cluster of kSlices
// blocks works on up to 8 rows, each block one slice of them: one decoded row keeps 8
// multiprocessors busy. Elsewhere one block does all slices. Either way every sum has the same
// order, so the bits of a row depend on neither the device's kind nor the number of rows.
#pragma once

#include <stdint.h>

#include "kernels/affine.h"

namespace cogit::cuda {

constexpr int kSlices = 8;  // the most blocks of a cluster that every device accepts
constexpr int kTeam = 128;
constexpr int kBlockTeams = 4;
// What a block gets without asking; more is never needed, see below.
constexpr int64_t kSharedBytes = 48 * 1024;
constexpr int64_t kMostBlocks = int64_t{1} << 30;

// The kernel's argument.
struct AffineLaunch {
  AffineCall call;
  int64_t tiles;        // groups of rows
  float* partial_sums;  // global memory for ranks whose sums do not fit shared memory, else null
  bool staged;          // shared memory holds the changed rows until their norm is known
};

struct AffinePlan {
  bool aligned;  // four columns to a load
  bool cluster;
  int rows;  // of one tile
  int64_t tiles;
  int64_t blocks;
  int threads;
  bool staged;
  int64_t shared_bytes;
  int64_t workspace_floats;  // 0: the sums are in shared memory
};

namespace detail {

inline bool is_aligned(const void* pointer, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % static_cast<uintptr_t>(bytes) == 0;
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline bool allows_quads(const AffineCall& call) {
  const int64_t quad = call.type == Float::kF32 ? 16 : 8;
  const bool strides = call.d_model % 4 == 0 &&
                       (call.rows == 1 || (call.h_stride % 4 == 0 && call.out_stride % 4 == 0));
  const bool weights = call.rank == 0 || (is_aligned(call.A, 16) && is_aligned(call.B, 16));
  return strides && weights && is_aligned(call.c, 16) && is_aligned(call.h, quad) &&
         is_aligned(call.out, quad);
}

}  // namespace detail

// A tile has 1, 2, 4 or 8 rows in the kernels that matter most, 1 or 4 in the others: each size is
// one more kernel to compile, and a block of more threads has fewer registers for each.
constexpr int most_rows(bool aligned, bool cluster) { return aligned && cluster ? 8 : 4; }

// Floats that the squared norms and the sums of a tile take.
constexpr int64_t norm_floats(int rows) { return int64_t{2} * rows * 32; }
constexpr int64_t sum_floats(int rows, int64_t rank) { return kSlices * rows * rank; }

inline AffinePlan plan_affine(const AffineCall& call, bool has_clusters, int multiprocessors) {
  using detail::ceil_div;
  AffinePlan plan{};
  plan.aligned = detail::allows_quads(call);
  const auto fits = [&](int rows) {
    return 4 * (norm_floats(rows) + sum_floats(rows, call.rank)) <= kSharedBytes;
  };
  const bool shared_sums = fits(1);
  plan.cluster = has_clusters && shared_sums;
  // More rows in a tile share each load of the weights, fewer use more of the device.
  const int64_t blocks_per_tile = plan.cluster ? kSlices : 1;
  const int most = most_rows(plan.aligned, plan.cluster);
  const int step = most == 8 ? 2 : 4;
  plan.rows = 1;
  while (plan.rows < most && ceil_div(call.rows, plan.rows) * blocks_per_tile > multiprocessors &&
         (!shared_sums || fits(step * plan.rows))) {
    plan.rows *= step;
  }
  plan.tiles = ceil_div(call.rows, plan.rows);
  plan.blocks =
      blocks_per_tile * (plan.tiles < kMostBlocks / kSlices ? plan.tiles : kMostBlocks / kSlices);
  plan.threads = plan.cluster ? kTeam : kBlockTeams * kTeam;

  int64_t floats = norm_floats(plan.rows);
  if (shared_sums) {
    floats += sum_floats(plan.rows, call.rank);
  } else {
    // Each block has its own sums: no more blocks than the device runs at once.
    const int64_t most = 2 * int64_t{multiprocessors};
    plan.blocks = plan.blocks < most ? plan.blocks : most;
    plan.workspace_floats = plan.blocks * sum_floats(plan.rows, call.rank);
  }
  const int64_t quads = ceil_div(call.d_model, 4);
  const int64_t staged_floats = 4 * plan.rows * (plan.cluster ? ceil_div(quads, kSlices) : quads);
  plan.staged = call.restore && 4 * (floats + staged_floats) <= kSharedBytes;
  plan.shared_bytes = 4 * (floats + (plan.staged ? staged_floats : 0));
  return plan;
}

}  // namespace cogit::cuda
