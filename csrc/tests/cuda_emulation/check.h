// Random data, element types and the record of failures, shared by the emulated tests.
#pragma once

#include <stdint.h>

#include <cstring>
#include <string>
#include <vector>

namespace cogit::test {

// Counts a check, and prints the first failures.
void check(bool passed, const std::string& what);
// Of all checks so far.
int checks();
int failures();

// Uniform in [-1, 1); the sequence is always the same.
float uniform();
std::vector<float> uniforms(int64_t count);
int64_t draw(int64_t below);

inline bool same_bits(const void* a, const void* b, int64_t bytes) {
  return std::memcmp(a, b, static_cast<size_t>(bytes)) == 0;
}

void test_affine();
void test_dense();

}  // namespace cogit::test
