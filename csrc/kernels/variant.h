// What one instruction set provides: a name and one function per kernel.
#pragma once

#include "kernels/affine.h"

namespace cogit {

// Rows of the residual stream that share one pass over the weights.
constexpr int kRowBlock = 4;

struct Variant {
  const char* name;
  // scratch: kRowBlock * rank floats.
  void (*affine_f32)(const AffineF32& call, float* scratch);
};

// Each is defined in its own variant_*.cpp; CMakeLists.txt says which are built.
extern const Variant kBaseline;
extern const Variant kX86_64_v3;
extern const Variant kX86_64_v4;
extern const Variant kNeon;

}  // namespace cogit
