#include "kernels/affine.h"

#include "kernels/dispatch.h"
#include "kernels/pool.h"
#include "kernels/scratch.h"

namespace cogit {
namespace {

constexpr int64_t kChunk = 8 * kRowBlock;

AffineCall part_of(const AffineCall& call, int64_t begin, int64_t end) {
  const int64_t size = call.type == Float::kF32 ? 4 : 2;
  AffineCall part = call;
  part.rows = end - begin;
  part.h = static_cast<const char*>(call.h) + begin * call.h_stride * size;
  part.out = static_cast<char*>(call.out) + begin * call.out_stride * size;
  if (call.strengths != nullptr) part.strengths = call.strengths + begin;
  return part;
}

}  // namespace

bool affine_is_small(const AffineCall& call) {
  const int64_t work = call.rows * call.d_model * (2 * call.rank + 4);
  return call.rows <= kRowBlock || work < kAlone;
}

void affine_apply(const AffineCall& call, int threads) {
  const Variant& variant = active_variant();
  if (threads <= 1 || affine_is_small(call)) {
    variant.affine(call, scratch(affine_scratch(call)));
    return;
  }
  // Two chunks a thread at least, in whole blocks of rows.
  int64_t chunk = call.rows / (2 * threads) / kRowBlock * kRowBlock;
  chunk = chunk < kRowBlock ? kRowBlock : chunk > kChunk ? kChunk : chunk;
  parallel_for(call.rows, chunk, threads, [&](int64_t begin, int64_t end) {
    variant.affine(part_of(call, begin, end), scratch(affine_scratch(call)));
  });
}

}  // namespace cogit
