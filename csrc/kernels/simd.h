// Vectors of float32 in the compilers' own extensions: the same source for every instruction set.
//
// Only for variant_*.cpp, which define COGIT_VECTOR_BYTES first. Everything that is compiled with
// the flags of one variant must stay private to its object file, or the linker may hand AVX-512
// code to a CPU without it. Hence the unnamed namespace, and no header of the C++ library.
#pragma once

#include <stdint.h>

#define COGIT_INLINE inline __attribute__((always_inline))

namespace cogit {
namespace {

constexpr int kLanes = COGIT_VECTOR_BYTES / 4;

typedef float Vector __attribute__((vector_size(COGIT_VECTOR_BYTES)));
typedef int32_t Ints __attribute__((vector_size(COGIT_VECTOR_BYTES)));
typedef uint32_t Words __attribute__((vector_size(COGIT_VECTOR_BYTES)));
typedef uint16_t Halves __attribute__((vector_size(COGIT_VECTOR_BYTES / 2)));
// The same in memory, where only the alignment of an element is known.
typedef float VectorInMemory
    __attribute__((vector_size(COGIT_VECTOR_BYTES), aligned(4), may_alias));
typedef uint32_t WordsInMemory
    __attribute__((vector_size(COGIT_VECTOR_BYTES), aligned(1), may_alias));
typedef uint16_t HalvesInMemory
    __attribute__((vector_size(COGIT_VECTOR_BYTES / 2), aligned(2), may_alias));

COGIT_INLINE Vector load(const float* from) {
  return *reinterpret_cast<const VectorInMemory*>(from);
}

COGIT_INLINE void store(float* to, Vector value) { *reinterpret_cast<VectorInMemory*>(to) = value; }

COGIT_INLINE Words load_words(const void* from) {
  return *reinterpret_cast<const WordsInMemory*>(from);
}

COGIT_INLINE Halves load_halves(const uint16_t* from) {
  return *reinterpret_cast<const HalvesInMemory*>(from);
}

COGIT_INLINE void store_halves(uint16_t* to, Words low_halves) {
  *reinterpret_cast<HalvesInMemory*>(to) = __builtin_convertvector(low_halves, Halves);
}

COGIT_INLINE Words bits_of(Vector value) { return reinterpret_cast<Words>(value); }
COGIT_INLINE Vector from_bits(Words bits) { return reinterpret_cast<Vector>(bits); }

typedef float Vector4 __attribute__((vector_size(16)));

COGIT_INLINE float sum_lanes(Vector4 v) { return (v[0] + v[2]) + (v[1] + v[3]); }

// Wide vectors are folded in half until four lanes are left.
#if COGIT_VECTOR_BYTES >= 32
typedef float Vector8 __attribute__((vector_size(32)));

COGIT_INLINE float sum_lanes(Vector8 v) {
  Vector4 half[2];
  __builtin_memcpy(half, &v, sizeof v);
  return sum_lanes(half[0] + half[1]);
}
#endif

#if COGIT_VECTOR_BYTES >= 64
typedef float Vector16 __attribute__((vector_size(64)));

COGIT_INLINE float sum_lanes(Vector16 v) {
  Vector8 half[2];
  __builtin_memcpy(half, &v, sizeof v);
  return sum_lanes(half[0] + half[1]);
}
#endif

// One step of summing lanes, for two vectors at once. Each holds the partial sums of one or more
// totals in groups of 2 * kHalf lanes; the result holds those of a, then those of b, in groups of
// kHalf: the two halves of every group are added.
template <int kHalf>
COGIT_INLINE Vector fold_groups(Vector a, Vector b) {
#if COGIT_VECTOR_BYTES == 64
  if constexpr (kHalf == 8) {
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
           __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30,
                                   31);
  } else if constexpr (kHalf == 4) {
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
           __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30,
                                   31);
  } else if constexpr (kHalf == 2) {
    return __builtin_shufflevector(a, b, 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29) +
           __builtin_shufflevector(a, b, 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30,
                                   31);
  } else if constexpr (kHalf == 1) {
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28,
                                   30) +
           __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  }
#elif COGIT_VECTOR_BYTES == 32
  if constexpr (kHalf == 4) {
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11) +
           __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
  } else if constexpr (kHalf == 2) {
    return __builtin_shufflevector(a, b, 0, 1, 4, 5, 8, 9, 12, 13) +
           __builtin_shufflevector(a, b, 2, 3, 6, 7, 10, 11, 14, 15);
  } else if constexpr (kHalf == 1) {
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14) +
           __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
  }
#elif COGIT_VECTOR_BYTES == 16
  if constexpr (kHalf == 2) {
    return __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
  } else if constexpr (kHalf == 1) {
    return __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
  }
#endif
}

template <int kHalf, int kCount>
COGIT_INLINE void fold_all(Vector* partial) {
  constexpr int kPairs = (kCount + 1) / 2;
  for (int i = 0; i < kPairs; ++i) {
    const int other = 2 * i + 1 < kCount ? 2 * i + 1 : 2 * i;
    partial[i] = fold_groups<kHalf>(partial[2 * i], partial[other]);
  }
  if constexpr (kHalf > 1) fold_all<kHalf / 2, kPairs>(partial);
}

// sums[i] = sum_lanes(vectors[i]) bit for bit, for kCount vectors; spoils the vectors. Every total
// is folded in half as there, but one addition serves as many totals as fit a vector.
template <int kCount>
COGIT_INLINE void sum_lanes_of(Vector* vectors, float* sums) {
  constexpr int kAtOnce = kCount < kLanes ? kCount : kLanes;
  for (int first = 0; first < kCount; first += kAtOnce) {
    fold_all<kLanes / 2, kAtOnce>(vectors + first);
    for (int i = 0; i < kAtOnce; ++i) sums[first + i] = vectors[first][i];
  }
}

// Real and imaginary lanes exchanged in every pair.
COGIT_INLINE Vector swap_pairs(Vector v) {
#if COGIT_VECTOR_BYTES == 64
  return __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
#elif COGIT_VECTOR_BYTES == 32
  return __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6);
#else
  return __builtin_shufflevector(v, v, 1, 0, 3, 2);
#endif
}

// Sum of the even lanes minus sum of the odd ones.
COGIT_INLINE float sum_lanes_alternating(Vector v) {
  Vector signs;
  for (int lane = 0; lane < kLanes; ++lane) signs[lane] = lane % 2 == 0 ? 1.0f : -1.0f;
  return sum_lanes(v * signs);
}

}  // namespace
}  // namespace cogit
