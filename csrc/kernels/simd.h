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
// The same in memory, where only the alignment of a float is known.
typedef float VectorInMemory
    __attribute__((vector_size(COGIT_VECTOR_BYTES), aligned(4), may_alias));

COGIT_INLINE Vector load(const float* from) {
  return *reinterpret_cast<const VectorInMemory*>(from);
}

COGIT_INLINE void store(float* to, Vector value) { *reinterpret_cast<VectorInMemory*>(to) = value; }

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

}  // namespace
}  // namespace cogit
