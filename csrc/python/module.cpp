// The private module cogit._core: what it holds is the list of calls below.
#include <pybind11/pybind11.h>

#include "kernels/cuda/cuda.h"

namespace cogit::python {

void register_info(pybind11::module_& module);
void register_affine(pybind11::module_& module);
void register_dense(pybind11::module_& module);
void register_probe(pybind11::module_& module);

namespace {

// A part that this build or machine lacks is cogit's own error in Python.
void translate_missing(std::exception_ptr error) {
  try {
    if (error) std::rethrow_exception(error);
  } catch (const cuda::Missing& missing) {
    const auto type = pybind11::module_::import("cogit.errors").attr("BackendMissingError");
    PyErr_SetString(type.ptr(), missing.what());
  }
}

}  // namespace
}  // namespace cogit::python

PYBIND11_MODULE(_core, module) {
  module.doc() = "Compiled kernels of cogit; use cogit.kernels.";
  pybind11::register_local_exception_translator(&cogit::python::translate_missing);
  cogit::python::register_info(module);
  cogit::python::register_affine(module);
  cogit::python::register_dense(module);
  cogit::python::register_probe(module);
}
