// The ends of calls for one instruction set; included by variant_*.cpp.
//
// A row of an affine is summed in float32 in scratch, with both squared norms, and written once.

#include "kernels/element.h"
#include "kernels/finish.h"
#include "kernels/simd.h"
#include "kernels/variant.h"

namespace cogit {
namespace {

template <typename Element>
void finish_row(const FinishCall& call, int64_t row, float strength, float* sums) {
  typedef typename Element::Stored Stored;
  const Stored* h = static_cast<const Stored*>(call.h) + row * call.h_stride;
  const Stored* change = static_cast<const Stored*>(call.change) + row * call.change_stride;
  Stored* out = static_cast<Stored*>(call.out) + row * call.out_stride;
  const int64_t d = call.d_model;
  // Two sums each, or every addition would wait for the one before.
  Vector before[2] = {};
  Vector after[2] = {};
  int64_t j = 0;
  for (; j + 2 * kLanes <= d; j += 2 * kLanes) {
    for (int k = 0; k < 2; ++k) {
      const int64_t at = j + k * kLanes;
      const Vector x = Element::load(h + at);
      const Vector y = x + strength * (Element::load(change + at) + load(call.c + at));
      store(sums + at, y);
      before[k] += x * x;
      after[k] += y * y;
    }
  }
  float was = sum_lanes(before[0] + before[1]);
  float is = sum_lanes(after[0] + after[1]);
  for (; j < d; ++j) {
    const float x = Element::widen(h[j]);
    const float y = x + strength * (Element::widen(change[j]) + call.c[j]);
    sums[j] = y;
    was += x * x;
    is += y * y;
  }
  // An unchanged row has two equal sums, added up in the same order: the factor is exactly 1.
  const float factor = call.restore && is != 0.0f ? __builtin_sqrtf(was / is) : 1.0f;
  for (j = 0; j + kLanes <= d; j += kLanes) Element::store(out + j, load(sums + j) * factor);
  for (; j < d; ++j) out[j] = Element::narrow(sums[j] * factor);
}

template <typename Element>
void finish_rows(const FinishCall& call, int64_t begin, int64_t end, float* scratch) {
  typedef typename Element::Stored Stored;
  for (int64_t row = begin; row < end; ++row) {
    const float strength = call.strengths != nullptr ? call.strengths[row] : 1.0f;
    if (strength != 0.0f) {
      finish_row<Element>(call, row, strength, scratch);
      continue;
    }
    const Stored* h = static_cast<const Stored*>(call.h) + row * call.h_stride;
    Stored* out = static_cast<Stored*>(call.out) + row * call.out_stride;
    if (out != h) __builtin_memcpy(out, h, static_cast<uint64_t>(call.d_model) * sizeof *out);
  }
}

void finish_call(const FinishCall& call, int64_t begin, int64_t end, float* scratch) {
  switch (call.type) {
    case Float::kF32:
      return finish_rows<F32>(call, begin, end, scratch);
    case Float::kBF16:
      return finish_rows<BF16>(call, begin, end, scratch);
    case Float::kF16:
      return finish_rows<F16>(call, begin, end, scratch);
  }
}

void dense_finish_states(const DenseFinishCall& call, int64_t begin, int64_t end) {
  const int64_t size = 2 * call.q;
  for (int64_t n = begin; n < end; ++n) {
    const float* psi = call.psi + 2 * n * call.psi_stride;
    float* to = call.change + 2 * n * call.change_stride;
    Vector squares[2] = {};
    int64_t j = 0;
    for (; j + 2 * kLanes <= size; j += 2 * kLanes) {
      for (int k = 0; k < 2; ++k) {
        const int64_t at = j + k * kLanes;
        const Vector y = call.a * load(psi + at) + call.b * load(to + at);
        store(to + at, y);
        squares[k] += y * y;
      }
    }
    float square = sum_lanes(squares[0] + squares[1]);
    for (; j < size; ++j) {
      to[j] = call.a * psi[j] + call.b * to[j];
      square += to[j] * to[j];
    }
    if (call.normalise && square != 0.0f) scale_row(to, size, 1.0f / __builtin_sqrtf(square));
  }
}

}  // namespace
}  // namespace cogit
