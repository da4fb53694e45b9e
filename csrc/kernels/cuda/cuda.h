// The same kernels on NVIDIA GPUs. Built from the *.cu files beside this one where nvcc was found,
// else from no_cuda.cpp, which defines the same functions and refuses in one clear sentence.
#pragma once

#include <stdint.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/affine.h"
#include "kernels/dense.h"

namespace cogit::cuda {

// This build, or this machine, cannot do it; the message says why and what to do.
struct Missing : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Device {
  std::string name;
  int major;  // compute capability
  int minor;
  int multiprocessors;
  int64_t memory;  // bytes
};

bool built();

// Versions such as 13000; 0 where there is none (no driver, or not built).
int driver_version();
int runtime_version();

// Empty without a driver, without a device, and where CUDA was not built. Never throws.
std::vector<Device> devices();

// All pointers of the call are memory of this device. Runs asynchronously on the stream (a
// cudaStream_t; null is the legacy default stream), in one launch. Same contracts and laws as on
// the CPU, for any d_model, rank, stride and element alignment. Throws Missing without a CUDA
// build, std::runtime_error where CUDA reports an error.
void affine_apply(const AffineCall& call, int device, void* stream);
void dense_apply(const DenseCall& call, int device, void* stream);

}  // namespace cogit::cuda
