// Runs the CUDA kernels on the CPU and compares them with float64.
#include <cstdio>

#include "check.h"

namespace cogit::test {
namespace {

int checks_made = 0;
int checks_failed = 0;
uint64_t state = 0x243f6a8885a308d3u;

}  // namespace

void check(bool passed, const std::string& what) {
  ++checks_made;
  if (passed) return;
  if (++checks_failed <= 20) std::fprintf(stderr, "failed: %s\n", what.c_str());
}

int checks() { return checks_made; }
int failures() { return checks_failed; }

int64_t draw(int64_t below) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return static_cast<int64_t>((state >> 33) % static_cast<uint64_t>(below));
}

float uniform() { return static_cast<float>(draw(1 << 24)) / static_cast<float>(1 << 23) - 1.0f; }

std::vector<float> uniforms(int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = uniform();
  return values;
}

}  // namespace cogit::test

int main() {
  cogit::test::test_affine();
  cogit::test::test_dense();
  const int failed = cogit::test::failures();
  std::printf("cuda emulation: %d of %d checks failed\n", failed, cogit::test::checks());
  return failed == 0 ? 0 : 1;
}
