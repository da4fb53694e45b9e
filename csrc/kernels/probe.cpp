#include "kernels/probe.h"

#include "kernels/dispatch.h"

namespace cogit {

float probe_read(const float* data, int64_t count) {
  return active_variant().read_sum(data, count);
}

int64_t probe_multiply_add(int64_t rounds) { return active_variant().multiply_add(rounds); }

}  // namespace cogit
