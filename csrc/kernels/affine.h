// The steering kernel: every operator at one layer folds to this one low-rank affine.
#pragma once

#include <stdint.h>

namespace cogit {

// Element type of the residual stream; sums are float32 whichever it is.
enum class Float : int32_t { kF32 = 0, kBF16 = 1, kF16 = 2 };

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
//   - a row's result does not depend, in any bit, on the rows beside it, nor on the number of
//     threads; NaN stays in its row;
//   - products and sums are float32, with an error at most twice that of plain float32 code; a
//     bfloat16 or float16 result is the float32 one rounded once, to nearest even.
//
// The caller guarantees valid pointers and that `out` shares memory with nothing else here, except
// that it may be `h` itself with the same stride. Strides count elements and may be negative. h and
// out are aligned to their element and no more.
struct AffineCall {
  const float* A;          // (rank, d_model), rows contiguous and adjacent
  const float* a0;         // (rank)
  const float* B;          // (rank, d_model), rows contiguous and adjacent
  const float* c;          // (d_model)
  int64_t rank;            // 0 is allowed: an additive vector
  int64_t d_model;         //
  bool restore;            //
  Float type;              // of h and out
  const void* h;           // (rows, d_model), rows contiguous
  int64_t h_stride;        //
  const float* strengths;  // (rows), or null for strength 1
  void* out;               // (rows, d_model), rows contiguous
  int64_t out_stride;      //
  int64_t rows;            // 0 is allowed: nothing happens
};

// True for a call so small that affine_apply keeps it on one thread whatever it may use.
bool affine_is_small(const AffineCall& call);

// Runs the call with the active CPU variant (see dispatch.h) on up to `threads` threads, counting
// this one; small calls stay on this one. Throws std::invalid_argument if the variant asked for by
// the environment cannot run here.
void affine_apply(const AffineCall& call, int threads);

}  // namespace cogit
