#include "kernels/affine.h"

#include <cstddef>
#include <vector>

#include "kernels/dispatch.h"

namespace cogit {

void affine_apply(const AffineF32& call) {
  const Variant& variant = active_variant();
  // Kept between calls: steering a layer must not cost an allocation per token.
  thread_local std::vector<float> scratch;
  const auto needed = static_cast<std::size_t>(kRowBlock * call.rank);
  if (scratch.size() < needed) scratch.resize(needed);
  variant.affine_f32(call, scratch.data());
}

}  // namespace cogit
