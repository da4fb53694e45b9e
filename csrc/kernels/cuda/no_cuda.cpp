// cogit without CUDA kernels: the same functions, which refuse.
#include "kernels/cuda/cuda.h"

namespace cogit::cuda {
namespace {

[[noreturn]] void refuse(const char* where) {
  throw Missing("[" + std::string(where) +
                "] expected a build with CUDA kernels, got one without (" COGIT_CUDA_REASON
                "); build with COGIT_CUDA=ON where nvcc is installed, or move the tensors with "
                ".cpu()");
}

}  // namespace

bool built() { return false; }
int driver_version() { return 0; }
int runtime_version() { return 0; }
std::vector<Device> devices() { return {}; }

void affine_apply(const AffineCall&, int, void*) { refuse("affine_apply"); }
void dense_apply(const DenseCall&, int, void*) { refuse("dense_apply"); }

}  // namespace cogit::cuda
