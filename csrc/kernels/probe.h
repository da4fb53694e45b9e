// Measures what this core can do, as the limit that the benchmarks compare with.
#pragma once

#include <stdint.h>

namespace cogit {

// Reads `count` floats once with the active variant and returns their sum.
float probe_read(const float* data, int64_t count);

// Multiplies and adds in registers for a while; returns the number of floating-point operations.
int64_t probe_multiply_add(int64_t rounds);

}  // namespace cogit
