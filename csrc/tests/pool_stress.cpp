// Drives the thread pool and the kernels on it from several threads at once; built with
// ThreadSanitizer by `make tsan`. Exits with 1 if a result differs from the one of a single thread.
#include <atomic>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <vector>

#include "kernels/affine.h"
#include "kernels/dense.h"
#include "kernels/pool.h"

namespace {

std::atomic<int> failures{0};

void expect(bool passed, const char* what) {
  if (passed) return;
  std::fprintf(stderr, "failed: %s\n", what);
  ++failures;
}

std::vector<float> values(std::size_t count, unsigned seed) {
  std::vector<float> result(count);
  for (float& value : result) {
    seed = seed * 1664525u + 1013904223u;
    value = static_cast<float>(seed >> 8) / 16777216.0f - 0.5f;
  }
  return result;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// Every item once, whoever gets it.
void cover() {
  for (int threads = 1; threads <= 5; ++threads) {
    for (const int64_t count : {0, 1, 7, 64, 1000}) {
      std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count));
      cogit::parallel_for(count, 3, threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
      });
      for (const std::atomic<int>& times : seen) expect(times == 1, "each item once");
    }
  }
}

// An exception comes out once, and the pool works afterwards.
void fail() {
  for (int round = 0; round < 20; ++round) {
    bool caught = false;
    try {
      cogit::parallel_for(100, 1, 4, [&](int64_t begin, int64_t) {
        if (begin % 10 == 3) throw std::runtime_error("planned");
      });
    } catch (const std::runtime_error&) {
      caught = true;
    }
    expect(caught, "the exception of a chunk reaches the caller");
  }
}

void affine(int threads) {
  constexpr int64_t kRows = 203, kWidth = 640, kRank = 20;
  static const std::vector<float> down = values(kRank * kWidth, 1), up = values(kRank * kWidth, 2);
  static const std::vector<float> bias = values(kRank, 3), shift = values(kWidth, 4);
  static const std::vector<float> h = values(kRows * kWidth, 5);
  std::vector<float> out(h.size()), alone(h.size());
  cogit::AffineCall call{
      down.data(),        bias.data(), up.data(), shift.data(), kRank,      kWidth, true,
      cogit::Float::kF32, h.data(),    kWidth,    nullptr,      out.data(), kWidth, kRows};
  cogit::affine_apply(call, threads);
  call.out = alone.data();
  cogit::affine_apply(call, 1);
  expect(same(out, alone), "an affine call does not depend on the threads");
}

void dense(int threads) {
  constexpr int64_t kSize = 700, kStates = 3;
  static const std::vector<float> change = values(2 * kSize * kSize, 6);
  static const std::vector<float> psi = values(2 * kStates * kSize, 7);
  std::vector<float> out(psi.size()), alone(psi.size());
  cogit::DenseCall call{cogit::DenseFormat::kComplex64,
                        change.data(),
                        nullptr,
                        kSize,
                        psi.data(),
                        kSize,
                        out.data(),
                        kSize,
                        kStates,
                        1.0f,
                        0.3f,
                        true};
  cogit::dense_apply(call, threads);
  call.out = alone.data();
  cogit::dense_apply(call, 1);
  expect(same(out, alone), "a dense call does not depend on the threads");
}

}  // namespace

int main() {
  cover();
  fail();
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([caller] {
      for (int round = 0; round < 12; ++round) {
        affine(1 + (round + caller) % 4);
        dense(1 + (round + caller) % 3);
        if (round % 4 == 0) cover();
        if (round % 6 == 0) fail();
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  std::printf("pool: %s\n", failures == 0 ? "passed" : "failed");
  return failures == 0 ? 0 : 1;
}
