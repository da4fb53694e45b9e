// The end of a call whose matrix products were made elsewhere, in one pass over the rows.
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

// One call. State n becomes
//
//   change_n = normalise(a * psi_n + b * change_n)
//
// with normalise and laws as in DenseCall; change shares no memory with psi.
struct DenseFinishCall {
  int64_t q;              //
  const float* psi;       // (batch, q) complex64, rows contiguous
  int64_t psi_stride;     //
  float* change;          // (batch, q) complex64, rows contiguous: D psi, then the result
  int64_t change_stride;  //
  int64_t batch;          // 0 is allowed: nothing happens
  float a;                //
  float b;                //
  bool normalise;         //
};

// As affine_finish.
void dense_finish(const DenseFinishCall& call, int threads);

}  // namespace cogit
