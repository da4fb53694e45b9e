#include "kernels/cuda/launch.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>

namespace cogit::cuda {
namespace {

std::string advice(cudaError_t error) {
  switch (error) {
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
      return "build cogit with CMAKE_CUDA_ARCHITECTURES set to this device's compute capability";
    case cudaErrorInsufficientDriver:
    case cudaErrorNoDevice:
      return "install a driver for CUDA " + std::to_string(CUDART_VERSION / 1000) +
             " or move the tensors with .cpu()";
    case cudaErrorInvalidDevice:
      return "pass tensors of a device that cogit lists";
    case cudaErrorMemoryAllocation:
      return "free memory of the device";
    case cudaErrorStreamCaptureUnsupported:
    case cudaErrorStreamCaptureImplicit:
      return "call it once with these sizes before anything is captured";
    default:
      return "it may come from earlier work: CUDA_LAUNCH_BLOCKING=1 shows which call failed";
  }
}

}  // namespace

void check(cudaError_t error, const char* where, const char* what, int device) {
  if (error == cudaSuccess) return;
  // Otherwise the next library that asks for the last error would take it for its own.
  (void)cudaGetLastError();
  throw std::runtime_error("[" + std::string(where) + "] expected " + what +
                           " on cuda:" + std::to_string(device) + ", got " +
                           cudaGetErrorString(error) + "; " + advice(error));
}

// ---- devices ----

DeviceGuard::DeviceGuard(const char* where, int device) {
  check(cudaGetDevice(&previous_), where, "a current device", device);
  if (previous_ == device) return;
  check(cudaSetDevice(device), where, "the device to become the current one", device);
  changed_ = true;
}

DeviceGuard::~DeviceGuard() {
  if (changed_) (void)cudaSetDevice(previous_);
}

Capability capability(const char* where, int device, const void* cluster_kernel) {
  static std::mutex mutex;
  static std::map<int, Capability> known;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = known.find(device);
  if (found != known.end()) return found->second;
  Capability asked{};
  int major = 0;
  const auto ask = [&](int* value, cudaDeviceAttr attribute) {
    check(cudaDeviceGetAttribute(value, attribute, device), where, "to read attributes", device);
  };
  ask(&major, cudaDevAttrComputeCapabilityMajor);
  ask(&asked.multiprocessors, cudaDevAttrMultiProcessorCount);
  cudaFuncAttributes compiled{};
  check(cudaFuncGetAttributes(&compiled, cluster_kernel), where, "a kernel that runs", device);
  asked.clusters = major >= 9 && compiled.ptxVersion >= 90;
  return known[device] = asked;
}

// ---- workspaces ----

namespace {

struct Buffer {
  char* data = nullptr;
  int64_t bytes = 0;
};

constexpr int64_t kReserveBytes = int64_t{4} << 20;
constexpr int64_t kReservedCalls = 32;

class Workspaces {
 public:
  Workspace get(const char* where, int device, cudaStream_t stream, int64_t floats,
                int64_t tickets) {
    const std::lock_guard<std::mutex> lock(mutex_);
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(stream, &status), where, "a usable stream", device);
    const int64_t float_bytes = rounded(4 * floats);
    const int64_t ticket_bytes = rounded(4 * tickets);
    Buffer& reserve = reserves_[device];
    if (status != cudaStreamCaptureStatusNone) {
      if (reserve.bytes < float_bytes + ticket_bytes) {
        throw std::runtime_error(
            "[" + std::string(where) +
            "] expected workspace for a captured call on cuda:" + std::to_string(device) +
            ", got none left; call it once with these sizes before capturing");
      }
      char* floats_at = take(reserve, float_bytes);
      return as_workspace(floats_at, take(reserve, ticket_bytes));
    }
    const int64_t wanted = std::max(kReserveBytes, kReservedCalls * (float_bytes + ticket_bytes));
    if (reserve.bytes < wanted / 2) reserve = allocate(where, device, stream, wanted);
    // The handle of the per-thread default stream is the same in every thread.
    const bool per_thread = stream == cudaStreamPerThread;
    const auto thread = per_thread ? std::this_thread::get_id() : std::thread::id();
    Own& own = own_[std::make_tuple(device, stream, thread)];
    grow(own.floats, where, device, stream, float_bytes);
    grow(own.tickets, where, device, stream, ticket_bytes);
    return as_workspace(own.floats.data, own.tickets.data);
  }

 private:
  // Apart, so that floats of one call never lie where the next one, of another size, has tickets.
  struct Own {
    Buffer floats;
    Buffer tickets;
  };

  static int64_t rounded(int64_t bytes) { return (bytes + 255) / 256 * 256; }

  static Workspace as_workspace(char* floats, char* tickets) {
    return {reinterpret_cast<float*>(floats), reinterpret_cast<unsigned*>(tickets)};
  }

  static char* take(Buffer& from, int64_t bytes) {
    char* taken = from.data;
    from.data += bytes;
    from.bytes -= bytes;
    return taken;
  }

  static Buffer allocate(const char* where, int device, cudaStream_t stream, int64_t bytes) {
    void* data = nullptr;
    const auto size = static_cast<size_t>(bytes);
    check(cudaMalloc(&data, size), where, "workspace", device);
    check(cudaMemsetAsync(data, 0, size, stream), where, "to clear the workspace", device);
    // It may be used on another stream next.
    check(cudaStreamSynchronize(stream), where, "to clear the workspace", device);
    return {static_cast<char*>(data), bytes};
  }

  static void grow(Buffer& buffer, const char* where, int device, cudaStream_t stream,
                   int64_t bytes) {
    if (buffer.bytes >= bytes) return;
    const int64_t least = int64_t{64} << 10;
    buffer = allocate(where, device, stream, std::max({bytes, 2 * buffer.bytes, least}));
  }

  std::mutex mutex_;
  std::map<int, Buffer> reserves_;
  std::map<std::tuple<int, cudaStream_t, std::thread::id>, Own> own_;
};

}  // namespace

Workspace workspace(const char* where, int device, cudaStream_t stream, int64_t floats,
                    int64_t tickets) {
  // Never destroyed: at exit the driver may already be gone.
  static auto* const workspaces = new Workspaces;
  return workspaces->get(where, device, stream, floats, tickets);
}

// ---- launching ----

void launch(const char* where, int device, const void* kernel, const Grid& grid,
            cudaStream_t stream, void* argument) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(grid.blocks));
  config.blockDim = dim3(static_cast<unsigned>(grid.threads));
  config.dynamicSmemBytes = static_cast<size_t>(grid.shared_bytes);
  config.stream = stream;
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = static_cast<unsigned>(grid.cluster_blocks);
  cluster.val.clusterDim.y = 1;
  cluster.val.clusterDim.z = 1;
  config.attrs = &cluster;
  config.numAttrs = grid.cluster_blocks > 1 ? 1 : 0;
  check(cudaLaunchKernelExC(&config, kernel, &argument), where, "the launch to succeed", device);
}

}  // namespace cogit::cuda
