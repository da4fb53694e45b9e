// _core.info and _core.set_cpu_variant: what was built and what runs.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "kernels/dispatch.h"

// Both are given by the top-level CMakeLists.txt.
#ifndef COGIT_VERSION
#define COGIT_VERSION "unknown"
#endif
#ifndef COGIT_CUDA_REASON
#define COGIT_CUDA_REASON "not built: this build has no CUDA kernels"
#endif

#if defined(__clang__)
#define COGIT_COMPILER "clang " __clang_version__
#else
#define COGIT_COMPILER "gcc " __VERSION__
#endif

namespace cogit::python {
namespace {

namespace py = pybind11;

py::dict info() {
  using py::literals::operator""_a;
  return py::dict("cpu_variant"_a = active_variant().name, "variants"_a = supported_variants(),
                  "cuda"_a = py::dict("built"_a = false, "reason"_a = COGIT_CUDA_REASON),
                  "version"_a = COGIT_VERSION, "compiler"_a = COGIT_COMPILER);
}

}  // namespace

void register_info(py::module_& module) {
  module.def("info", &info, "What this build holds and which CPU variant runs.");
  module.def("set_cpu_variant", &set_variant, py::arg("name"),
             "Run this CPU variant from now on; for tests and benchmarks.");
}

}  // namespace cogit::python
