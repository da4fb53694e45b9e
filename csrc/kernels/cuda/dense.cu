// The dense call on a device; see dense_plan.h and dense_kernel.cuh.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/dense_kernel.cuh"
#include "kernels/cuda/launch.h"

namespace cogit::cuda {

void dense_apply(const DenseCall& call, int device, void* stream) {
  constexpr const char* kWhere = "dense_apply";
  if (call.batch == 0 || call.q == 0) return;
  const DeviceGuard guard(kWhere, device);
  const DensePlan plan = plan_dense(call);
  const auto on = static_cast<cudaStream_t>(stream);
  DenseLaunch argument{call, plan.row_groups, plan.tiles, nullptr, nullptr};
  if (call.normalise) {
    const Workspace own = workspace(kWhere, device, on, plan.squares, plan.tiles);
    argument.squares = own.floats;
    argument.tickets = own.tickets;
  }
  const DenseKernel kernel = dense_kernel_for(plan, call.format);
  const Grid grid{plan.blocks, kDenseThreads, plan.shared_bytes, 1};
  launch(kWhere, device, reinterpret_cast<const void*>(kernel), grid, on, &argument);
}

}  // namespace cogit::cuda
