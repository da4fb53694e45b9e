// How one dense call becomes one launch. Plain C++, so that tests can look at it.
//
// A block works on a group of rows of D and a tile of states. The tiles of one group are neighbours
// in the grid, so D comes from the second-level cache for all tiles but the first.
#pragma once

#include <stdint.h>

#include "kernels/dense.h"

namespace cogit::cuda {

constexpr int kDenseThreads = 256;
constexpr int kDenseWarps = kDenseThreads / 32;

// The kernel's argument.
struct DenseLaunch {
  DenseCall call;
  int64_t row_groups;
  int64_t tiles;      // groups of states
  float* squares;     // (tiles, row_groups, states of a tile): parts of |x|^2, if normalising
  unsigned* tickets;  // (tiles): row groups that are done; 0 before and after every launch
};

struct DensePlan {
  bool aligned;  // pairs are aligned to their size
  int states;    // of one tile: 1, 2, 4 or 8
  int64_t row_groups;
  int64_t tiles;
  int64_t blocks;
  int64_t shared_bytes;
  int64_t squares;  // of DenseLaunch; 0 unless normalising
};

// Rows of D that share a warp's loads of psi: more for small elements, whose psi is as large as
// ever. Independent of the number of states, so that a state's norm is added up in the same order
// in any batch.
constexpr int dense_rows(DenseFormat format) { return format == DenseFormat::kComplex64 ? 2 : 4; }

inline DensePlan plan_dense(const DenseCall& call) {
  const auto is_aligned = [](const void* pointer, uintptr_t bytes) {
    return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
  };
  const auto ceil_div = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  const uintptr_t pair_bytes = call.format == DenseFormat::kComplex64 ? 8
                               : call.format == DenseFormat::kBF16    ? 4
                                                                      : 2;
  DensePlan plan{};
  plan.aligned =
      is_aligned(call.D, pair_bytes) && is_aligned(call.psi, 8) && is_aligned(call.out, 8);
  plan.states = call.batch > 4 ? 8 : call.batch > 2 ? 4 : call.batch > 1 ? 2 : 1;
  const int rows = kDenseWarps * dense_rows(call.format);
  plan.row_groups = ceil_div(call.q, rows);
  plan.tiles = ceil_div(call.batch, plan.states);
  const int64_t most_blocks = int64_t{1} << 30;
  const int64_t blocks = plan.row_groups * plan.tiles;
  plan.blocks = blocks < most_blocks ? blocks : most_blocks;
  plan.shared_bytes = 4 * (int64_t{rows} * plan.states + 4);
  plan.squares = call.normalise ? blocks * plan.states : 0;
  return plan;
}

}  // namespace cogit::cuda
