// _core.info and the switches: what was built, what runs, on how many threads.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "kernels/cuda/cuda.h"
#include "kernels/dispatch.h"
#include "kernels/pool.h"
#include "python/tensor.h"

// Both are given by the top-level CMakeLists.txt.
#ifndef COGIT_VERSION
#define COGIT_VERSION "unknown"
#endif
#ifndef COGIT_CUDA_REASON
#define COGIT_CUDA_REASON "csrc was built alone"
#endif

#if defined(__clang__)
#define COGIT_COMPILER "clang " __clang_version__
#else
#define COGIT_COMPILER "gcc " __VERSION__
#endif

namespace cogit::python {
namespace {

namespace py = pybind11;

using py::literals::operator""_a;

py::dict cuda_info() {
  py::list devices;
  for (const cuda::Device& device : cuda::devices()) {
    devices.append(
        py::dict("name"_a = device.name,
                 "capability"_a = std::to_string(device.major) + "." + std::to_string(device.minor),
                 "multiprocessors"_a = device.multiprocessors, "memory"_a = device.memory));
  }
  return py::dict("built"_a = cuda::built(), "reason"_a = COGIT_CUDA_REASON,
                  "runtime"_a = cuda::runtime_version(), "driver"_a = cuda::driver_version(),
                  "devices"_a = devices);
}

py::dict info() {
  return py::dict("cpu_variant"_a = active_variant().name, "variants"_a = supported_variants(),
                  "threads"_a = thread_count(), "cuda"_a = cuda_info(), "version"_a = COGIT_VERSION,
                  "compiler"_a = COGIT_COMPILER);
}

void set_threads(int threads) {
  if (threads < 1) {
    refuse_value("set_threads", "at least 1 thread", std::to_string(threads),
                 "pass the number of threads to use");
  }
  set_thread_count(threads);
}

}  // namespace

void register_info(py::module_& module) {
  module.def("info", &info, "What this build holds, which CPU variant runs, and the GPUs.");
  module.def("set_cpu_variant", &set_variant, py::arg("name"),
             "Run this CPU variant from now on; for tests and benchmarks.");
  module.def("set_threads", &set_threads, py::arg("threads"),
             "How many threads a large call may use where its caller does not say.");
}

}  // namespace cogit::python
