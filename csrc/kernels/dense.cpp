#include "kernels/dense.h"

#include <algorithm>
#include <cmath>

#include "kernels/dispatch.h"
#include "kernels/pool.h"
#include "kernels/scratch.h"

namespace cogit {
namespace {

// Rows of D are worked on in chunks that fit a second-level cache beside the states. Their number
// depends on q and the format alone: the partial sums of the norm must not depend on the threads.
constexpr int64_t kChunkBytes = 256 * 1024;
constexpr int64_t kRowMultiple = 8;

int64_t bytes_of_pair(DenseFormat format) {
  return format == DenseFormat::kComplex64 ? 8 : format == DenseFormat::kBF16 ? 4 : 2;
}

int64_t chunk_rows(const DenseCall& call) {
  const int64_t rows = kChunkBytes / (bytes_of_pair(call.format) * call.q);
  return std::max(kRowMultiple, rows / kRowMultiple * kRowMultiple);
}

int64_t planes_of(DenseFormat format) {
  return format == DenseFormat::kComplex64 ? 0 : format == DenseFormat::kBF16 ? 2 : 4;
}

// Splits interleaved states into the planes of dense_impl.inl.
DenseStates split(const DenseCall& call, float* memory) {
  const int64_t planes = planes_of(call.format);
  if (planes == 0) return {call.psi, 2 * call.psi_stride, 0};
  const int64_t plane = padded((2 * call.q + planes - 1) / planes);
  for (int64_t n = 0; n < call.batch; ++n) {
    const float* psi = call.psi + 2 * n * call.psi_stride;
    float* to = memory + n * planes * plane;
    const int64_t whole = 2 * call.q / planes;
    for (int64_t k = 0; k < planes; ++k) {
      for (int64_t j = 0; j < whole; ++j) to[k * plane + j] = psi[j * planes + k];
    }
  }
  return {memory, planes * plane, plane};
}

int64_t split_size(const DenseCall& call) {
  const int64_t planes = planes_of(call.format);
  return planes == 0 ? 0 : call.batch * planes * padded((2 * call.q + planes - 1) / planes);
}

void scale_only(const Variant& variant, const DenseCall& call, float* squares) {
  for (int64_t n = 0; n < call.batch; ++n) {
    const float* psi = call.psi + 2 * n * call.psi_stride;
    float* out = call.out + 2 * n * call.out_stride;
    std::copy(psi, psi + 2 * call.q, out);
    if (call.a != 1.0f) variant.scale(out, 2 * call.q, call.a);
    for (int64_t j = 0; j < 2 * call.q; ++j) squares[n] += out[j] * out[j];
  }
}

}  // namespace

void dense_apply(const DenseCall& call, int threads) {
  const Variant& variant = active_variant();
  if (call.batch == 0 || call.q == 0) return;
  const int64_t chunk = chunk_rows(call);
  const int64_t chunks = (call.q + chunk - 1) / chunk;
  float* memory = scratch(padded(chunks * call.batch) + split_size(call));
  std::fill(memory, memory + chunks * call.batch, 0.0f);
  if (call.b == 0.0f) {
    scale_only(variant, call, memory);
  } else {
    const DenseStates states = split(call, memory + padded(chunks * call.batch));
    const bool alone = call.q * call.q * call.batch * 4 < kAlone;
    parallel_for(call.q, chunk, alone ? 1 : threads, [&](int64_t begin, int64_t end) {
      variant.dense(call, states, begin, end, memory + begin / chunk * call.batch);
    });
  }
  if (!call.normalise) return;
  for (int64_t n = 0; n < call.batch; ++n) {
    float square = 0.0f;
    for (int64_t k = 0; k < chunks; ++k) square += memory[k * call.batch + n];
    if (square == 0.0f) continue;
    variant.scale(call.out + 2 * n * call.out_stride, 2 * call.q, 1.0f / std::sqrt(square));
  }
}

void dense_unpack(const DenseCall& call, float* to, int threads) {
  const Variant& variant = active_variant();
  constexpr int64_t kChunk = 32;
  const bool alone = call.q * call.q * 4 < kAlone;
  parallel_for(call.q, kChunk, alone ? 1 : threads,
               [&](int64_t begin, int64_t end) { variant.dense_unpack(call, begin, end, to); });
}

}  // namespace cogit
