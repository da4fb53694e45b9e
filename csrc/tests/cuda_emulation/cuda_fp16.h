// float16 conversions of the emulation, by the device's rules: to nearest even, any NaN to 0x7fff.
#pragma once

#include "cuda_runtime.h"

inline uint16_t __ushort_as_half(uint16_t bits) { return bits; }
inline uint16_t __half_as_ushort(uint16_t bits) { return bits; }

inline float __half2float(uint16_t bits) {
  const float sign = (bits & 0x8000) != 0 ? -1.0f : 1.0f;
  const int exponent = (bits >> 10) & 31;
  const auto fraction = static_cast<float>(bits & 1023);
  if (exponent == 31) return fraction != 0.0f ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(fraction + 1024.0f, exponent - 25);
}

inline uint16_t __float2half_rn(float value) {
  if (value != value) return 0x7fff;
  const auto sign = static_cast<uint16_t>(std::signbit(value) ? 0x8000 : 0);
  const float size = std::fabs(value);
  if (size >= 65520.0f) return sign | 0x7c00;
  // One unit in the last place at this size, 2^-24 at the least; nearbyint rounds half to even.
  const int exponent = size == 0.0f ? -14 : std::max(std::ilogb(size), -14);
  const auto units = static_cast<int>(std::nearbyint(std::ldexp(size, 10 - exponent)));
  // A carry out of the fraction runs into the exponent, as it should.
  return static_cast<uint16_t>(sign | (units + (exponent + 14) * 1024));
}
