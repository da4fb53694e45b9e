// The machine's two limits for one instruction set: how fast it reads and how fast it multiplies.

#include "kernels/simd.h"

namespace cogit {
namespace {

constexpr int kChains = 12;  // enough independent sums to hide the latency of an addition

// The sum of `count` floats, read once.
float read_sum(const float* data, int64_t count) {
  Vector sums[kChains] = {};
  int64_t i = 0;
  for (; i + kChains * kLanes <= count; i += kChains * kLanes) {
    for (int k = 0; k < kChains; ++k) {
      __builtin_prefetch(reinterpret_cast<const char*>(data + i + k * kLanes) + 2048);
      sums[k] += load(data + i + k * kLanes);
    }
  }
  for (int k = 1; k < kChains; ++k) sums[0] += sums[k];
  float total = sum_lanes(sums[0]);
  for (; i < count; ++i) total += data[i];
  return total;
}

// `rounds` multiply-adds in each of kChains vectors; returns how many operations that were.
int64_t multiply_add(int64_t rounds) {
  Vector values[kChains];
  Vector factor = {}, term = {};
  factor += 0.999f;
  term += 1e-4f;
  for (int k = 0; k < kChains; ++k) values[k] = term * static_cast<float>(k);
  for (int64_t i = 0; i < rounds; ++i) {
    for (int k = 0; k < kChains; ++k) values[k] = values[k] * factor + term;
  }
  for (int k = 1; k < kChains; ++k) values[0] += values[k];
  // Somebody has to want the result, or the loop is thought away.
  volatile float sink = sum_lanes(values[0]);
  static_cast<void>(sink);
  return rounds * kChains * kLanes * 2;
}

}  // namespace
}  // namespace cogit
