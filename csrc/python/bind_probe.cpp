// Probes for the benchmarks: the limits of the machine and the cost of looking at tensors.
#include <pybind11/pybind11.h>

#include "kernels/probe.h"
#include "python/tensor.h"

namespace cogit::python {
namespace {

namespace py = pybind11;

float read(py::handle array) {
  const Rows rows = Arguments("probe_read").rows("array", array, {DType::kFloat32});
  if (rows.ndim != 1 || rows.device.cuda) {
    refuse_value("probe_read", "a vector on the CPU", shape_text(array), "flatten it");
  }
  const py::gil_scoped_release release;
  return probe_read(static_cast<const float*>(rows.data), rows.width);
}

int64_t multiply_add(int64_t rounds) {
  const py::gil_scoped_release release;
  return probe_multiply_add(rounds);
}

// What a call with five tensors costs before any work: all the checks and no kernel.
int64_t dispatch(py::handle a, py::handle b, py::handle c, py::handle d, py::handle e) {
  const Arguments arguments("probe_dispatch");
  int64_t total = 0;
  for (const py::handle tensor : {a, b, c, d, e}) {
    total += arguments.rows("tensor", tensor, {DType::kFloat32, DType::kBFloat16, DType::kFloat16})
                 .extent();
  }
  return total;
}

}  // namespace

void register_probe(py::module_& module) {
  module.def("probe_read", &read, py::arg("array"), "Read a float32 vector once; its sum.");
  module.def("probe_multiply_add", &multiply_add, py::arg("rounds"),
             "Multiply and add in registers; the number of floating-point operations done.");
  module.def("probe_dispatch", &dispatch, "Check five tensors and do nothing else.");
}

}  // namespace cogit::python
