// What one instruction set provides: a name and one function per kernel.
#pragma once

#include "kernels/affine.h"
#include "kernels/dense.h"
#include "kernels/finish.h"

namespace cogit {

// Rows of the residual stream that share one pass over the weights.
constexpr int kRowBlock = 4;

// Elements up to the next cache line.
constexpr int64_t padded(int64_t count) { return (count + 15) & ~int64_t{15}; }

// The states of a dense call laid out as its format wants them: state n begins at
// data + n * stride, its planes (see dense_impl.inl) are `plane` floats apart.
struct DenseStates {
  const float* data;
  int64_t stride;
  int64_t plane;
};

struct Variant {
  const char* name;
  // scratch: affine_scratch(call) floats.
  void (*affine)(const AffineCall& call, float* scratch);
  // Rows begin .. end - 1 of the call. scratch: d_model floats.
  void (*finish)(const FinishCall& call, int64_t begin, int64_t end, float* scratch);
  // Rows begin .. end - 1 of D for every state, before normalising; adds the squared norms of the
  // results to squares (batch).
  void (*dense)(const DenseCall& call, const DenseStates& states, int64_t begin, int64_t end,
                float* squares);
  // Rows begin .. end - 1 of a change stored as pairs, as float32 pairs (q, q); of the call only
  // the format, D, scales and q are read.
  void (*dense_unpack)(const DenseCall& call, int64_t begin, int64_t end, float* to);
  // States begin .. end - 1 of the call.
  void (*dense_finish)(const DenseFinishCall& call, int64_t begin, int64_t end);
  void (*scale)(float* row, int64_t size, float factor);
  float (*read_sum)(const float* data, int64_t count);
  int64_t (*multiply_add)(int64_t rounds);
};

// Coefficients of a block of rows, and the rows themselves as float32 where they are narrower.
constexpr int64_t affine_scratch(const AffineCall& call) {
  const int64_t rows = call.type == Float::kF32 ? 0 : kRowBlock * padded(call.d_model);
  return padded(kRowBlock * call.rank) + rows;
}

// Each is defined in its own variant_*.cpp; CMakeLists.txt says which are built.
extern const Variant kBaseline;
extern const Variant kX86_64_v3;
extern const Variant kX86_64_v4;
extern const Variant kNeon;

}  // namespace cogit
