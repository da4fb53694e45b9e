// What this machine has.
#include <cuda_runtime_api.h>

#include "kernels/cuda/cuda.h"

namespace cogit::cuda {

bool built() { return true; }

int driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

int runtime_version() {
  int version = 0;
  return cudaRuntimeGetVersion(&version) == cudaSuccess ? version : 0;
}

std::vector<Device> devices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) count = 0;
  std::vector<Device> found;
  for (int device = 0; device < count; ++device) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, device) != cudaSuccess) continue;
    found.push_back({properties.name, properties.major, properties.minor,
                     properties.multiProcessorCount,
                     static_cast<int64_t>(properties.totalGlobalMem)});
  }
  // What failed above is an answer here, and no error for whoever asks next.
  (void)cudaGetLastError();
  return found;
}

}  // namespace cogit::cuda
