// The affine call on a device; see affine_plan.h and affine_kernel.cuh.
#include <stdexcept>

#include "kernels/cuda/affine_select.cuh"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/launch.h"

namespace cogit::cuda {

void affine_apply(const AffineCall& call, int device, void* stream) {
  constexpr const char* kWhere = "affine_apply";
  if (call.rows == 0 || call.d_model == 0) return;
  // The kernel counts quads and rows of A in 32 bits.
  if (call.d_model >= int64_t{1} << 32 || call.rank >= int64_t{1} << 28) {
    throw std::runtime_error(
        "[affine_apply] expected d_model below 2^32 and rank below 2^28, got more; split it");
  }
  const DeviceGuard guard(kWhere, device);
  const auto probe = reinterpret_cast<const void*>(&affine_kernel<F32, true, 1, true>);
  const Capability has = capability(kWhere, device, probe);
  const AffinePlan plan = plan_affine(call, has.clusters, has.multiprocessors);
  const auto on = static_cast<cudaStream_t>(stream);
  AffineLaunch argument{call, plan.tiles, nullptr, plan.staged};
  if (plan.workspace_floats > 0) {
    argument.partial_sums = workspace(kWhere, device, on, plan.workspace_floats, 0).floats;
  }
  const AffineKernel kernel = affine_kernel_for(plan, call.type);
  const Grid grid{plan.blocks, plan.threads, plan.shared_bytes, plan.cluster ? kSlices : 1};
  launch(kWhere, device, reinterpret_cast<const void*>(kernel), grid, on, &argument);
}

}  // namespace cogit::cuda
