// Which instantiation of the affine kernel a plan wants.
#pragma once

#include "kernels/cuda/affine_kernel.cuh"

namespace cogit::cuda {

using AffineKernel = void (*)(AffineLaunch);

template <class Io, bool kAligned, bool kCluster>
AffineKernel affine_kernel_for(int rows) {
  if constexpr (most_rows(kAligned, kCluster) == 8) {
    if (rows == 8) return affine_kernel<Io, kAligned, 8, kCluster>;
    if (rows == 2) return affine_kernel<Io, kAligned, 2, kCluster>;
  }
  return rows == 4 ? affine_kernel<Io, kAligned, 4, kCluster>
                   : affine_kernel<Io, kAligned, 1, kCluster>;
}

template <class Io>
AffineKernel affine_kernel_for(const AffinePlan& plan) {
  if (plan.cluster) {
    return plan.aligned ? affine_kernel_for<Io, true, true>(plan.rows)
                        : affine_kernel_for<Io, false, true>(plan.rows);
  }
  return plan.aligned ? affine_kernel_for<Io, true, false>(plan.rows)
                      : affine_kernel_for<Io, false, false>(plan.rows);
}

inline AffineKernel affine_kernel_for(const AffinePlan& plan, Float type) {
  if (type == Float::kF32) return affine_kernel_for<F32>(plan);
  if (type == Float::kBF16) return affine_kernel_for<BF16>(plan);
  return affine_kernel_for<F16>(plan);
}

}  // namespace cogit::cuda
