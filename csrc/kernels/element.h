// Elements of the residual stream as float32 vectors, for one instruction set; see simd.h.
//
// bfloat16 is the upper half of a float32. float16 is converted by instructions where the variant
// has them, else by integer arithmetic on the bits. Both round to nearest, ties to even, and keep a
// NaN a NaN.
#pragma once

#if defined(__F16C__)
#pragma GCC diagnostic push
// GCC 12 sees its own deliberately undefined registers.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#include "kernels/simd.h"

namespace cogit {
namespace {

struct F32 {
  typedef float Stored;
  static COGIT_INLINE Vector load(const Stored* from) { return cogit::load(from); }
  static COGIT_INLINE void store(Stored* to, Vector value) { cogit::store(to, value); }
  static COGIT_INLINE float widen(Stored value) { return value; }
  static COGIT_INLINE Stored narrow(float value) { return value; }
};

COGIT_INLINE uint32_t bits_of(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
}

COGIT_INLINE float from_bits(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

struct BF16 {
  typedef uint16_t Stored;
  static COGIT_INLINE Vector load(const Stored* from) {
    return cogit::from_bits(__builtin_convertvector(load_halves(from), Words) << 16);
  }
  static COGIT_INLINE void store(Stored* to, Vector value) {
    const Words bits = cogit::bits_of(value);
    const Words rounded = bits + 0x7fff + ((bits >> 16) & 1);
    // Rounding would carry a NaN with a full mantissa over into the sign.
    const Words is_nan = reinterpret_cast<Words>(value != value);
    store_halves(to, ((rounded & ~is_nan) | ((bits | 0x400000) & is_nan)) >> 16);
  }
  static COGIT_INLINE float widen(Stored value) {
    return cogit::from_bits(static_cast<uint32_t>(value) << 16);
  }
  static COGIT_INLINE Stored narrow(float value) {
    const uint32_t bits = cogit::bits_of(value);
    if (value != value) return static_cast<Stored>((bits | 0x400000) >> 16);
    return static_cast<Stored>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  }
};

struct F16 {
  typedef uint16_t Stored;
  static COGIT_INLINE float widen(Stored value) { return from_bits(widened(uint32_t{value})); }
  static COGIT_INLINE Stored narrow(float value) {
    return static_cast<Stored>(narrowed(bits_of(value)));
  }

#if defined(__AVX512F__) && COGIT_VECTOR_BYTES == 64
  static COGIT_INLINE Vector load(const Stored* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static COGIT_INLINE void store(Stored* to, Vector value) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                        _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
  }
#elif defined(__F16C__) && COGIT_VECTOR_BYTES == 32
  static COGIT_INLINE Vector load(const Stored* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static COGIT_INLINE void store(Stored* to, Vector value) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                     _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
  }
#else
  static COGIT_INLINE Vector load(const Stored* from) {
    return cogit::from_bits(widened(__builtin_convertvector(load_halves(from), Words)));
  }
  static COGIT_INLINE void store(Stored* to, Vector value) {
    store_halves(to, narrowed(cogit::bits_of(value)));
  }
#endif

 private:
  // The bits of the float32 equal to a float16. Shifted into place, its exponent is short by 112;
  // a multiplication by 2^112 mends that, subnormals included.
  static COGIT_INLINE uint32_t widened(uint32_t half) {
    const uint32_t magnitude = (half & 0x7fff) << 13;
    const uint32_t sign = (half & 0x8000) << 16;
    if (magnitude >= 0x0f800000) return sign | magnitude | 0x7f800000;  // infinity or NaN
    return sign | cogit::bits_of(cogit::from_bits(magnitude) * 0x1p112f);
  }
  static COGIT_INLINE Words widened(Words half) {
    const Words magnitude = (half & 0x7fff) << 13;
    const Words special = reinterpret_cast<Words>(magnitude >= 0x0f800000) & 0x7f800000;
    const Words scaled = cogit::bits_of(cogit::from_bits(magnitude) * 0x1p112f);
    const Words is_special = reinterpret_cast<Words>(special != 0);
    return ((half & 0x8000) << 16) | (is_special & (magnitude | special)) | (~is_special & scaled);
  }

  // The float16 nearest to a float32, in the low half. Adding a power of two that is 2^13 times as
  // large as the last place to keep lets the float32 addition do the rounding, for subnormals too.
  static COGIT_INLINE uint32_t narrowed(uint32_t bits) {
    const uint32_t sign = (bits >> 16) & 0x8000;
    const uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return sign | 0x7e00 | ((magnitude >> 13) & 0x3ff);  // NaN
    if (magnitude >= 0x477ff000) return sign | 0x7c00;  // rounds to infinity
    if (magnitude < 0x38800000) {                       // subnormal: places of 2^-24
      return sign | (cogit::bits_of(cogit::from_bits(magnitude) + 0.5f) - 0x3f000000);
    }
    const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
    return sign | ((rounded - 0x38000000) >> 13);
  }
  static COGIT_INLINE Words narrowed(Words bits) {
    const Words sign = (bits >> 16) & 0x8000;
    const Words magnitude = bits & 0x7fffffff;
    const Words nan = 0x7e00 | ((magnitude >> 13) & 0x3ff);
    const Words subnormal = cogit::bits_of(cogit::from_bits(magnitude) + 0.5f) - 0x3f000000;
    const Words normal = (magnitude + 0xfff + ((magnitude >> 13) & 1) - 0x38000000) >> 13;
    Words result = normal;
    result = select(reinterpret_cast<Words>(magnitude < 0x38800000), subnormal, result);
    const Words infinity = result - result + 0x7c00;
    result = select(reinterpret_cast<Words>(magnitude >= 0x477ff000), infinity, result);
    result = select(reinterpret_cast<Words>(magnitude > 0x7f800000), nan, result);
    return sign | result;
  }
  static COGIT_INLINE Words select(Words where, Words yes, Words no) {
    return (where & yes) | (~where & no);
  }
};

}  // namespace
}  // namespace cogit
