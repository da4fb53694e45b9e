// bfloat16 conversions of the emulation, by the device's rules: to nearest even, any NaN to 0x7fff.
#pragma once

#include "cuda_runtime.h"

inline uint16_t __float2bfloat16_rn(float value) {
  if (value != value) return 0x7fff;
  const uint32_t bits = __float_as_uint(value);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
inline uint16_t __bfloat16_as_ushort(uint16_t bits) { return bits; }
