// The steering kernel: every operator at one layer folds to this one low-rank affine.
#pragma once

#include <stdint.h>

namespace cogit {

// One call. Row n of the residual stream becomes
//
//   out_n = restore(h_n + s_n * ((h_n A^T + a0) B + c))
//
// restore(x) = x * sqrt(|h_n|^2 / |x|^2) where asked, else x. The factor is exactly 1 where x
// equals h_n and where |x| is 0. Squared norms are float32: a row with |h| above about 1e19 becomes
// NaN.
//
// Laws the tests hold it to:
//   - a row of strength 0 is copied bit for bit;
//   - a row's result does not depend, in any bit, on the rows beside it; NaN stays in its row;
//   - products and sums are float32, with an error at most twice that of plain float32 code.
//
// The caller guarantees valid pointers and that `out` shares memory with nothing else here, except
// that it may be `h` itself with the same stride. Strides count elements and may be negative.
struct AffineF32 {
  const float* A;          // (rank, d_model), rows contiguous and adjacent
  const float* a0;         // (rank)
  const float* B;          // (rank, d_model), rows contiguous and adjacent
  const float* c;          // (d_model)
  int64_t rank;            // 0 is allowed: an additive vector
  int64_t d_model;         //
  bool restore;            //
  const float* h;          // (rows, d_model), rows contiguous
  int64_t h_stride;        //
  const float* strengths;  // (rows), or null for strength 1
  float* out;              // (rows, d_model), rows contiguous
  int64_t out_stride;      //
  int64_t rows;            // 0 is allowed: nothing happens
};

// Runs the call on this thread with the active CPU variant (see dispatch.h). Throws
// std::invalid_argument if the variant asked for by the environment cannot run here.
void affine_apply(const AffineF32& call);

}  // namespace cogit
