// The rows of one tile of an affine call.
#pragma once

#include "kernels/affine.h"
#include "kernels/cuda/device.cuh"

namespace cogit::cuda {

__device__ inline int64_t column(int quad) { return int64_t{kQuad} * quad; }

template <class Io, bool kAligned, int kRows>
struct AffineRows {
  using Bits = typename Io::Bits;

  const AffineCall& call;
  int64_t first = 0;
  int count = 0;  // of kRows that exist
  float strength[kRows];

  __device__ explicit AffineRows(const AffineCall& the_call) : call(the_call) {}

  // False if every row is only copied.
  __device__ bool take(int64_t tile) {
    first = tile * kRows;
    count = static_cast<int>(call.rows - first < kRows ? call.rows - first : kRows);
    bool any = false;
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      strength[row] = 0.0f;
      if (row < count) {
        strength[row] = call.strengths == nullptr ? 1.0f : __ldg(call.strengths + first + row);
      }
      any = any || strength[row] != 0.0f;
    }
    return any;
  }

  // strength[row], without a run-time index that would move the array to memory.
  __device__ float strength_of(int row) const {
    float found = strength[0];
#pragma unroll
    for (int k = 1; k < kRows; ++k) found = row == k ? strength[k] : found;
    return found;
  }

  // A row past the end reads the first one, and writes nothing.
  __device__ const Bits* h(int row) const {
    const int64_t n = first + (row < count ? row : 0);
    return static_cast<const Bits*>(call.h) + n * call.h_stride;
  }

  __device__ Quad<float> load(int row, int quad) const {
    return widen<Io>(load_quad<kAligned>(h(row), column(quad), call.d_model));
  }

  __device__ void store(int row, int quad, const Quad<float>& y) const {
    if (row >= count) return;
    Bits* out = static_cast<Bits*>(call.out) + (first + row) * call.out_stride;
    // Strength 0 copies the bits: rounding would change those of a NaN, adding 0 those of -0.
    const bool copied = strength[row] == 0.0f;
    if (copied && out == h(row)) return;
    const int64_t j = column(quad);
    store_quad<kAligned>(out, j, call.d_model,
                         copied ? load_quad<kAligned>(h(row), j, call.d_model) : round<Io>(y));
  }
};

}  // namespace cogit::cuda
