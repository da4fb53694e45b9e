// The end of an affine whose matrix products were made elsewhere, in one pass over the rows.
#pragma once

#include <stdint.h>

#include "kernels/affine.h"

namespace cogit {

// One call. Row n of the residual stream becomes
//
//   out_n = restore(h_n + s_n * (change_n + c))
//
// with restore, strengths, memory and laws as in AffineCall; change has the type of h, and shares
// no memory with out.
struct FinishCall {
  const float* c;          // (d_model)
  int64_t d_model;         //
  bool restore;            //
  Float type;              // of h, change and out
  const void* h;           // (rows, d_model), rows contiguous
  int64_t h_stride;        //
  const void* change;      // (rows, d_model), rows contiguous
  int64_t change_stride;   //
  const float* strengths;  // (rows), or null for strength 1
  void* out;               // (rows, d_model), rows contiguous
  int64_t out_stride;      //
  int64_t rows;            // 0 is allowed: nothing happens
};

// Runs the call with the active CPU variant on up to `threads` threads, counting this one.
void affine_finish(const FinishCall& call, int threads);

}  // namespace cogit
