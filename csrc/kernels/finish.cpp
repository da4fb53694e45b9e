#include "kernels/finish.h"

#include "kernels/dispatch.h"
#include "kernels/pool.h"
#include "kernels/scratch.h"

namespace cogit {

void affine_finish(const FinishCall& call, int threads) {
  const Variant& variant = active_variant();
  constexpr int64_t kChunk = 16;
  // Bound by memory: a row costs about as much as four products an element.
  const bool alone = call.rows * call.d_model * 4 < kAlone;
  parallel_for(call.rows, kChunk, alone ? 1 : threads, [&](int64_t begin, int64_t end) {
    variant.finish(call, begin, end, scratch(padded(call.d_model)));
  });
}

void dense_finish(const DenseFinishCall& call, int threads) {
  const Variant& variant = active_variant();
  constexpr int64_t kChunk = 16;
  const bool alone = call.batch * call.q * 8 < kAlone;
  parallel_for(call.batch, kChunk, alone ? 1 : threads,
               [&](int64_t begin, int64_t end) { variant.dense_finish(call, begin, end); });
}

}  // namespace cogit
