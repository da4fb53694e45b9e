// The affine kernel for one instruction set; included by variant_*.cpp.
//
// Rows are taken in blocks that share each load of A and B. For a block:
//   1. project: coefficients u = (h A^T + a0) * s, a tile of rows of A at a time;
//   2. update:  out = h + s c + u B, a span of columns at a time, with both squared norms;
//   3. rescale, only if restore asks for it and the norm changed.
// h is read whole in step 1 and again, each column before it is written, in step 2: this is what
// makes working in place safe without a copy of the row.
//
// bfloat16 and float16 rows are widened into float32 scratch first and narrowed at the end, so that
// the three steps exist once and round once.
//
// Every sum runs in the same order for any block size, so a row gives the same bits alone and in a
// batch. The change is summed first and added to h once: h is often much larger, and each addition
// to it would cost a rounding of its size.

#include "kernels/affine.h"
#include "kernels/element.h"
#include "kernels/simd.h"
#include "kernels/variant.h"

namespace cogit {
namespace {

template <int kRows>
struct Block {
  const float* h[kRows];
  float* out[kRows];
  float strength[kRows];
  float factor[kRows];  // what update() leaves to be multiplied into out
  float* coefficients;  // (kRows, rank)
};

// Sums are taken in panels of columns and the panels added up: a lane that collected a whole row of
// thousands of products would carry several times the rounding error.
constexpr int64_t kPanel = 128 * kLanes;

COGIT_INLINE int64_t panel_end(int64_t begin, int64_t d) {
  return begin + kPanel < d ? begin + kPanel : d;
}

// Adds the products of columns begin .. end - 1 to coefficients first .. first + kDown - 1, as
// kDown * kRows sums that stay in registers.
template <int kDown, int kRows>
COGIT_INLINE void project_tile(const AffineCall& call, const Block<kRows>& block, int64_t first,
                               int64_t begin, int64_t end) {
  const int64_t d = call.d_model;
  const float* down = call.A + first * d;
  Vector sum[kDown][kRows] = {};
  int64_t j = begin;
  for (; j + kLanes <= end; j += kLanes) {
    Vector x[kRows];
    for (int row = 0; row < kRows; ++row) x[row] = load(block.h[row] + j);
    for (int i = 0; i < kDown; ++i) {
      const Vector a = load(down + i * d + j);
      for (int row = 0; row < kRows; ++row) sum[i][row] += a * x[row];
    }
  }
  float dots[kDown * kRows];
  sum_lanes_of<kDown * kRows>(&sum[0][0], dots);
  for (int i = 0; i < kDown; ++i) {
    for (int row = 0; row < kRows; ++row) {
      float dot = dots[i * kRows + row];
      for (int64_t k = j; k < end; ++k) dot += down[i * d + k] * block.h[row][k];
      block.coefficients[row * call.rank + first + i] += dot;
    }
  }
}

// One panel of h serves all of A while it is in the first-level cache. Eight independent sums hide
// the latency of a fused multiply-add; more must still fit the registers.
template <int kRows>
COGIT_INLINE void project(const AffineCall& call, const Block<kRows>& block) {
  constexpr int kSums = COGIT_VECTOR_REGISTERS >= 32 && kRows > 1 ? 16 : 8;
  constexpr int kMost = kSums / kRows;
  const int64_t rank = call.rank;
  for (int64_t i = 0; i < kRows * rank; ++i) block.coefficients[i] = 0.0f;
  for (int64_t begin = 0; begin < call.d_model; begin += kPanel) {
    const int64_t end = panel_end(begin, call.d_model);
    int64_t i = 0;
    for (; i + kMost <= rank; i += kMost) project_tile<kMost>(call, block, i, begin, end);
    if constexpr (kMost > 4) {
      for (; i + 4 <= rank; i += 4) project_tile<4>(call, block, i, begin, end);
    }
    if constexpr (kMost > 2) {
      for (; i + 2 <= rank; i += 2) project_tile<2>(call, block, i, begin, end);
    }
    for (; i < rank; ++i) project_tile<1>(call, block, i, begin, end);
  }
  for (int row = 0; row < kRows; ++row) {
    float* u = block.coefficients + row * rank;
    for (int64_t i = 0; i < rank; ++i) u[i] = (u[i] + call.a0[i]) * block.strength[row];
  }
}

// Columns j .. j + kSpan * kLanes - 1 of every row. before, after: running sums of squares.
template <int kSpan, int kRows>
COGIT_INLINE void update_span(const AffineCall& call, const Block<kRows>& block, int64_t j,
                              Vector (&before)[kRows], Vector (&after)[kRows]) {
  Vector change[kRows][kSpan];
  for (int k = 0; k < kSpan; ++k) {
    const Vector c = load(call.c + j + k * kLanes);
    for (int row = 0; row < kRows; ++row) change[row][k] = block.strength[row] * c;
  }
  const float* up = call.B + j;
  for (int64_t i = 0; i < call.rank; ++i, up += call.d_model) {
    Vector b[kSpan];
    for (int k = 0; k < kSpan; ++k) b[k] = load(up + k * kLanes);
    for (int row = 0; row < kRows; ++row) {
      const float u = block.coefficients[row * call.rank + i];
      for (int k = 0; k < kSpan; ++k) change[row][k] += u * b[k];
    }
  }
  for (int row = 0; row < kRows; ++row) {
    for (int k = 0; k < kSpan; ++k) {
      const Vector x = load(block.h[row] + j + k * kLanes);
      const Vector y = x + change[row][k];
      store(block.out[row] + j + k * kLanes, y);
      if (call.restore) {
        before[row] += x * x;
        after[row] += y * y;
      }
    }
  }
}

template <int kRows>
COGIT_INLINE void update(const AffineCall& call, Block<kRows>& block) {
  constexpr int kSums = COGIT_VECTOR_REGISTERS >= 32 && kRows > 1 ? 16 : 8;
  constexpr int kSpan = kSums / kRows;
  const int64_t d = call.d_model;
  float squares_before[kRows] = {};
  float squares_after[kRows] = {};
  int64_t j = 0;
  while (j + kLanes <= d) {
    const int64_t end = panel_end(j, d);
    Vector before[kRows] = {};
    Vector after[kRows] = {};
    for (; j + kSpan * kLanes <= end; j += kSpan * kLanes) {
      update_span<kSpan>(call, block, j, before, after);
    }
    for (; j + kLanes <= end; j += kLanes) update_span<1>(call, block, j, before, after);
    for (int row = 0; row < kRows; ++row) {
      squares_before[row] += sum_lanes(before[row]);
      squares_after[row] += sum_lanes(after[row]);
    }
  }

  for (int row = 0; row < kRows; ++row) {
    float was = squares_before[row];
    float is = squares_after[row];
    for (int64_t k = j; k < d; ++k) {
      float change = block.strength[row] * call.c[k];
      for (int64_t i = 0; i < call.rank; ++i) {
        change += block.coefficients[row * call.rank + i] * call.B[i * d + k];
      }
      const float x = block.h[row][k];
      const float y = x + change;
      block.out[row][k] = y;
      was += x * x;
      is += y * y;
    }
    // An unchanged row has two equal sums, added up in the same order: the factor is exactly 1.
    block.factor[row] = call.restore && is != 0.0f ? __builtin_sqrtf(was / is) : 1.0f;
  }
}

template <typename Element>
COGIT_INLINE void widen(const typename Element::Stored* from, float* to, int64_t d) {
  int64_t j = 0;
  for (; j + kLanes <= d; j += kLanes) store(to + j, Element::load(from + j));
  for (; j < d; ++j) to[j] = Element::widen(from[j]);
}

template <typename Element>
COGIT_INLINE void narrow(const float* from, typename Element::Stored* to, int64_t d, float factor) {
  int64_t j = 0;
  for (; j + kLanes <= d; j += kLanes) Element::store(to + j, load(from + j) * factor);
  for (; j < d; ++j) to[j] = Element::narrow(from[j] * factor);
}

// Steers the kRows rows of the call whose numbers `rows` lists.
template <typename Element, int kRows>
void apply(const AffineCall& call, const int64_t* rows, float* scratch) {
  typedef typename Element::Stored Stored;
  constexpr bool kWiden = sizeof(Stored) != sizeof(float);
  const int64_t d = call.d_model;
  Block<kRows> block;
  block.coefficients = scratch;
  Stored* out[kRows];
  for (int row = 0; row < kRows; ++row) {
    const Stored* h = static_cast<const Stored*>(call.h) + rows[row] * call.h_stride;
    out[row] = static_cast<Stored*>(call.out) + rows[row] * call.out_stride;
    block.strength[row] = call.strengths != nullptr ? call.strengths[rows[row]] : 1.0f;
    if constexpr (kWiden) {
      float* wide = scratch + padded(kRowBlock * call.rank) + row * padded(d);
      widen<Element>(h, wide, d);
      block.h[row] = block.out[row] = wide;
    } else {
      block.h[row] = h;
      block.out[row] = out[row];
    }
  }
  project(call, block);
  update(call, block);
  for (int row = 0; row < kRows; ++row) {
    if (kWiden || block.factor[row] != 1.0f) {
      narrow<Element>(block.out[row], out[row], d, block.factor[row]);
    }
  }
}

template <typename Element>
void affine_rows(const AffineCall& call, float* scratch) {
  typedef typename Element::Stored Stored;
  int64_t pending[kRowBlock];
  int count = 0;
  for (int64_t n = 0; n < call.rows; ++n) {
    if (call.strengths != nullptr && call.strengths[n] == 0.0f) {
      const Stored* h = static_cast<const Stored*>(call.h) + n * call.h_stride;
      Stored* out = static_cast<Stored*>(call.out) + n * call.out_stride;
      if (out != h) __builtin_memcpy(out, h, static_cast<uint64_t>(call.d_model) * sizeof *out);
      continue;
    }
    pending[count++] = n;
    if (count == kRowBlock) {
      apply<Element, kRowBlock>(call, pending, scratch);
      count = 0;
    }
  }
  for (int row = 0; row < count; ++row) apply<Element, 1>(call, pending + row, scratch);
}

void affine_call(const AffineCall& call, float* scratch) {
  switch (call.type) {
    case Float::kF32:
      return affine_rows<F32>(call, scratch);
    case Float::kBF16:
      return affine_rows<BF16>(call, scratch);
    case Float::kF16:
      return affine_rows<F16>(call, scratch);
  }
}

}  // namespace
}  // namespace cogit
