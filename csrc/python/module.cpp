// The private module cogit._core: what it holds is the list of calls below.
#include <pybind11/pybind11.h>

namespace cogit::python {

void register_info(pybind11::module_& module);
void register_affine(pybind11::module_& module);

}  // namespace cogit::python

PYBIND11_MODULE(_core, module) {
  module.doc() = "Compiled kernels of cogit; use cogit.kernels.";
  cogit::python::register_info(module);
  cogit::python::register_affine(module);
}
