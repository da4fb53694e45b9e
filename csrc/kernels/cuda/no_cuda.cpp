#include "kernels/cuda/cuda.h"
namespace cogit::cuda {
bool built() { return false; }
int driver_version() { return 0; }
int runtime_version() { return 0; }
std::vector<Device> devices() { return {}; }
void affine_apply(const AffineCall&, int, void*) { throw Missing("[affine_apply] expected a build with CUDA kernels, got one without; move it with .cpu()"); }
void dense_apply(const DenseCall&, int, void*) { throw Missing("[dense_apply] expected a build with CUDA kernels, got one without; move it with .cpu()"); }
}  // namespace cogit::cuda
