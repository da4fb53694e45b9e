// The dense complex kernel for one instruction set; included by variant_*.cpp.
//
// A tile of rows of D meets a tile of states: every load of D serves all states of the tile, every
// load of a state all rows. One state is bound by reading D from memory, so D is read once, as many
// rows at a time as the registers allow, and prefetched, because hardware prefetchers stop at the
// end of a page.
//
// The formats differ in how 2 * kLanes real numbers of D become vectors, and in how the states are
// laid out to match ("planes"), so that nothing has to be shuffled more than once.

#include "kernels/dense.h"
#include "kernels/element.h"
#include "kernels/simd.h"
#include "kernels/variant.h"

namespace cogit {
namespace {

constexpr int kWide = COGIT_VECTOR_REGISTERS >= 32;
constexpr int64_t kPrefetch = 384;  // bytes ahead in each row

// Interleaved as it is: p sums (ur*xr, ui*xi), s sums (ui*xr, ur*xi).
struct Complex64 {
  typedef float Stored;
  static constexpr int kPlanes = 1;
  static constexpr int64_t kStep = kLanes / 2;
  static constexpr int kRowsAlone = kWide ? 8 : 4;
  static constexpr int kRows = kWide ? 4 : 2;
  static constexpr int kStates = kWide ? 3 : 2;

  static COGIT_INLINE void load_state(const float* state, int64_t, int64_t j, Vector* x) {
    x[0] = load(state + 2 * j);
  }
  static COGIT_INLINE void decode(const Stored* u, Vector* parts) {
    parts[0] = load(u);
    parts[1] = swap_pairs(parts[0]);
  }
  static COGIT_INLINE void multiply(const Vector* parts, const Vector* x, Vector& p, Vector& s) {
    p += parts[0] * x[0];
    s += parts[1] * x[0];
  }
  static COGIT_INLINE float real(Vector p) { return sum_lanes_alternating(p); }
  static COGIT_INLINE float imaginary(Vector s) { return sum_lanes(s); }
  static COGIT_INLINE float widen(Stored value) { return value; }
};

// One 32-bit lane holds one pair, re below im. Planes: re, im.
struct PairBF16 {
  typedef uint16_t Stored;
  static constexpr int kPlanes = 2;
  static constexpr int64_t kStep = kLanes;
  static constexpr int kRowsAlone = kWide ? 8 : 4;
  static constexpr int kRows = kWide ? 4 : 2;
  static constexpr int kStates = 2;

  static COGIT_INLINE void load_state(const float* state, int64_t plane, int64_t j, Vector* x) {
    x[0] = load(state + j);
    x[1] = load(state + plane + j);
  }
  static COGIT_INLINE void decode(const Stored* u, Vector* parts) {
    const Words pairs = load_words(u);
    parts[0] = from_bits(pairs << 16);
    parts[1] = from_bits(pairs & 0xffff0000u);
  }
  static COGIT_INLINE void multiply(const Vector* parts, const Vector* x, Vector& p, Vector& s) {
    p += parts[0] * x[0];
    s += parts[0] * x[1];
    p -= parts[1] * x[1];
    s += parts[1] * x[0];
  }
  static COGIT_INLINE float real(Vector p) { return sum_lanes(p); }
  static COGIT_INLINE float imaginary(Vector s) { return sum_lanes(s); }
  static COGIT_INLINE float widen(Stored value) { return BF16::widen(value); }
};

// One 32-bit lane holds two pairs, lowest byte first. Planes: re and im of even states, then odd.
struct PairInt8 {
  typedef int8_t Stored;
  static constexpr int kPlanes = 4;
  static constexpr int64_t kStep = 2 * kLanes;
  static constexpr int kRowsAlone = kWide ? 8 : 4;
  static constexpr int kRows = 2;
  static constexpr int kStates = kWide ? 2 : 1;

  static COGIT_INLINE void load_state(const float* state, int64_t plane, int64_t j, Vector* x) {
    for (int k = 0; k < kPlanes; ++k) x[k] = load(state + k * plane + j / 2);
  }
  static COGIT_INLINE void decode(const Stored* u, Vector* parts) {
    const Ints lanes = reinterpret_cast<Ints>(load_words(u));
    parts[0] = __builtin_convertvector((lanes << 24) >> 24, Vector);
    parts[1] = __builtin_convertvector((lanes << 16) >> 24, Vector);
    parts[2] = __builtin_convertvector((lanes << 8) >> 24, Vector);
    parts[3] = __builtin_convertvector(lanes >> 24, Vector);
  }
  static COGIT_INLINE void multiply(const Vector* parts, const Vector* x, Vector& p, Vector& s) {
    for (int k = 0; k < kPlanes; k += 2) {
      p += parts[k] * x[k];
      s += parts[k] * x[k + 1];
      p -= parts[k + 1] * x[k + 1];
      s += parts[k + 1] * x[k];
    }
  }
  static COGIT_INLINE float real(Vector p) { return sum_lanes(p); }
  static COGIT_INLINE float imaginary(Vector s) { return sum_lanes(s); }
  static COGIT_INLINE float widen(Stored value) { return static_cast<float>(value); }
};

// Sums are taken in panels and the panels added up, as in the affine kernel and for its reason.
constexpr int64_t kDensePanel = 64 * kLanes;

// Rows row .. row + kRows - 1 of D times states first .. first + kStates - 1, blended and stored;
// adds the squared norms of what was stored to squares.
template <typename Format, int kRows, int kStates>
COGIT_INLINE void dense_tile(const DenseCall& call, const DenseStates& states, int64_t row,
                             int64_t first, float* squares) {
  typedef typename Format::Stored Stored;
  const int64_t q = call.q;
  const Stored* u = static_cast<const Stored*>(call.D) + 2 * row * q;
  float re[kRows][kStates] = {};
  float im[kRows][kStates] = {};
  int64_t j = 0;
  while (j + Format::kStep <= q) {
    const int64_t end = j + kDensePanel < q ? j + kDensePanel : q;
    Vector p[kRows][kStates] = {};
    Vector s[kRows][kStates] = {};
    for (; j + Format::kStep <= end; j += Format::kStep) {
      if constexpr (kStates == 1) {
        for (int i = 0; i < kRows; ++i) {
          // Used once: no need to push anything else out of the caches.
          __builtin_prefetch(reinterpret_cast<const char*>(u + 2 * (i * q + j)) + kPrefetch, 0, 0);
        }
      }
      Vector x[kStates][Format::kPlanes];
      for (int k = 0; k < kStates; ++k) {
        Format::load_state(states.data + (first + k) * states.stride, states.plane, j, x[k]);
      }
      for (int i = 0; i < kRows; ++i) {
        Vector parts[Format::kPlanes > 1 ? Format::kPlanes : 2];
        Format::decode(u + 2 * (i * q + j), parts);
        for (int k = 0; k < kStates; ++k) Format::multiply(parts, x[k], p[i][k], s[i][k]);
      }
    }
    for (int i = 0; i < kRows; ++i) {
      for (int k = 0; k < kStates; ++k) {
        re[i][k] += Format::real(p[i][k]);
        im[i][k] += Format::imaginary(s[i][k]);
      }
    }
  }
  for (int i = 0; i < kRows; ++i) {
    const float b = call.scales != nullptr ? call.b * call.scales[row + i] : call.b;
    for (int k = 0; k < kStates; ++k) {
      const float* psi = call.psi + 2 * (first + k) * call.psi_stride;
      for (int64_t t = j; t < q; ++t) {
        const float ur = Format::widen(u[2 * (i * q + t)]);
        const float ui = Format::widen(u[2 * (i * q + t) + 1]);
        re[i][k] += ur * psi[2 * t] - ui * psi[2 * t + 1];
        im[i][k] += ur * psi[2 * t + 1] + ui * psi[2 * t];
      }
      float* out = call.out + 2 * ((first + k) * call.out_stride + row + i);
      out[0] = call.a * psi[2 * (row + i)] + b * re[i][k];
      out[1] = call.a * psi[2 * (row + i) + 1] + b * im[i][k];
      squares[first + k] += out[0] * out[0] + out[1] * out[1];
    }
  }
}

template <typename Format, int kRows, int kStates>
COGIT_INLINE void dense_tiles(const DenseCall& call, const DenseStates& states, int64_t begin,
                              int64_t end, int64_t first, float* squares) {
  int64_t row = begin;
  for (; row + kRows <= end; row += kRows) {
    dense_tile<Format, kRows, kStates>(call, states, row, first, squares);
  }
  for (; row < end; ++row) dense_tile<Format, 1, kStates>(call, states, row, first, squares);
}

template <typename Format>
void dense_format(const DenseCall& call, const DenseStates& states, int64_t begin, int64_t end,
                  float* squares) {
  int64_t first = 0;
  if constexpr (Format::kStates > 1) {
    for (; first + Format::kStates <= call.batch; first += Format::kStates) {
      dense_tiles<Format, Format::kRows, Format::kStates>(call, states, begin, end, first, squares);
    }
  }
  for (; first < call.batch; ++first) {
    dense_tiles<Format, Format::kRowsAlone, 1>(call, states, begin, end, first, squares);
  }
}

void dense_rows(const DenseCall& call, const DenseStates& states, int64_t begin, int64_t end,
                float* squares) {
  switch (call.format) {
    case DenseFormat::kComplex64:
      return dense_format<Complex64>(call, states, begin, end, squares);
    case DenseFormat::kBF16:
      return dense_format<PairBF16>(call, states, begin, end, squares);
    case DenseFormat::kInt8:
      return dense_format<PairInt8>(call, states, begin, end, squares);
  }
}

void dense_unpack_rows(const DenseCall& call, int64_t begin, int64_t end, float* to) {
  const int64_t size = 2 * call.q;
  for (int64_t row = begin; row < end; ++row) {
    const float scale = call.scales != nullptr ? call.scales[row] : 1.0f;
    float* out = to + row * size;
    if (call.format == DenseFormat::kInt8) {
      const int8_t* u = static_cast<const int8_t*>(call.D) + row * size;
      for (int64_t j = 0; j < size; ++j) out[j] = static_cast<float>(u[j]) * scale;
    } else {
      const uint16_t* u = static_cast<const uint16_t*>(call.D) + row * size;
      for (int64_t j = 0; j < size; ++j) out[j] = BF16::widen(u[j]);
    }
  }
}

void scale_row(float* row, int64_t size, float factor) {
  int64_t j = 0;
  for (; j + kLanes <= size; j += kLanes) store(row + j, load(row + j) * factor);
  for (; j < size; ++j) row[j] *= factor;
}

}  // namespace
}  // namespace cogit
