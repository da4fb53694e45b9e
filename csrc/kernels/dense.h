// A dense complex operator on many states: the apply and the blend of a unitary in one pass.
#pragma once

#include <stdint.h>

namespace cogit {

// How the change D = U - I is stored. U itself is never quantised: near the identity its rounding
// would be as large as the change.
enum class DenseFormat : int32_t {
  kComplex64 = 0,  // float32 pairs (re, im)
  kBF16 = 1,       // bfloat16 pairs (re, im)
  kInt8 = 2,       // int8 pairs (re, im) times one float32 scale a row
};

// One call. State n becomes
//
//   out_n = normalise(a * psi_n + b * D psi_n)
//
// With a = 1, b = strength this is the blend (1 - b) psi + b U psi. normalise(x) = x / |x| where
// asked, else x; a state with |x| = 0 is left as it is. Sums are float32 (re and im apart).
//
// Laws the tests hold it to: a state's result does not depend, in any bit, on the number of
// threads; NaN in a state stays in that state; with b = 0 and a = 1 and no normalise it is psi
// bit for bit.
//
// The caller guarantees valid pointers and that out shares no memory with anything else here.
// Strides count complex elements and may be negative.
struct DenseCall {
  DenseFormat format;
  const void* D;        // (q, q) pairs, rows contiguous and adjacent; D[i][j] acts from j to i
  const float* scales;  // (q) for kInt8, else null
  int64_t q;            //
  const float* psi;     // (batch, q) complex64, rows contiguous
  int64_t psi_stride;   //
  float* out;           // (batch, q) complex64, rows contiguous
  int64_t out_stride;   //
  int64_t batch;        // 0 is allowed: nothing happens
  float a;              //
  float b;              //
  bool normalise;       //
};

// Runs the call with the active CPU variant on up to `threads` threads, counting this one; small
// calls stay on this one. Same errors as affine_apply.
void dense_apply(const DenseCall& call, int threads);

// A change stored as pairs in bfloat16 or int8, as complex64: to (q, q), for matrix products made
// elsewhere. Of the call only the format, D, scales and q are read.
void dense_unpack(const DenseCall& call, float* to, int threads);

}  // namespace cogit
