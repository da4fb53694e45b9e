// What the CUDA entry points share on the host: errors, the current device, workspaces, launching.
#pragma once

#include <cuda_runtime_api.h>
#include <stdint.h>

namespace cogit::cuda {

// Throws std::runtime_error "[where] expected <what> on cuda:<device>, got <error>; <advice>".
void check(cudaError_t error, const char* where, const char* what, int device);

// Makes a device the current one for as long as it lives.
class DeviceGuard {
 public:
  DeviceGuard(const char* where, int device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int previous_ = 0;
  bool changed_ = false;
};

struct Capability {
  bool clusters;
  int multiprocessors;
};

// Asked of the driver once for each device, which has to be the current one. cluster_kernel: a
// kernel that holds code for clusters only where it was compiled for a device that has them. Code
// for older devices runs on new ones too.
Capability capability(const char* where, int device, const void* cluster_kernel);

struct Workspace {
  float* floats;      // of any content
  unsigned* tickets;  // zero; a launch has to leave them zero
};

// Memory of this device, the current one, for the next launch on this stream. Launches on other
// streams get other memory, and so does every captured launch, because its graph may be replayed
// beside anything else. Nothing may be allocated while capturing: a captured call takes from a
// reserve that calls outside of captures fill, each with enough for many calls of its size, and
// throws std::runtime_error where that is used up. Memory is never freed: graphs may refer to it.
Workspace workspace(const char* where, int device, cudaStream_t stream, int64_t floats,
                    int64_t tickets);

struct Grid {
  int64_t blocks;
  int threads;
  int64_t shared_bytes;
  int cluster_blocks;  // 1: no clusters
};

// The device has to be the current one. argument: the kernel's only one.
void launch(const char* where, int device, const void* kernel, const Grid& grid,
            cudaStream_t stream, void* argument);

}  // namespace cogit::cuda
