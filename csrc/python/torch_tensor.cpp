#include "python/torch_tensor.h"

#include "python/dlpack.h"

namespace cogit::python {
namespace {

namespace py = pybind11;

// torch.Tensor and torch.nn.Parameter, once torch has been imported. Their memory is what it
// seems; that of other subclasses may be a stand-in for something else.
struct Torch {
  PyTypeObject* tensor = nullptr;
  PyTypeObject* parameter = nullptr;
  const dlpack::ExchangeAPI* api = nullptr;
  PyObject* requires_grad = nullptr;    // the name of an attribute
  PyObject* is_grad_enabled = nullptr;  // functions
  PyObject* empty_like = nullptr;
  PyObject* get_num_threads = nullptr;
  PyObject* is_neg = nullptr;
  PyObject* is_conj = nullptr;
};

Torch torch_types;  // references of its own, never given back

const dlpack::ExchangeAPI* exchange_api(py::handle tensor_type) {
  const py::object capsule = py::getattr(tensor_type, dlpack::kAttribute, py::none());
  const auto* api = static_cast<const dlpack::ExchangeAPI*>(
      PyCapsule_GetPointer(capsule.ptr(), dlpack::kCapsule));
  if (api == nullptr) PyErr_Clear();
  if (api == nullptr || api->header.major != dlpack::kMajorVersion ||
      api->view_of_object == nullptr) {
    throw py::import_error(
        "[kernels] expected a torch with the DLPack C exchange interface, got "
        "one without; upgrade torch to 2.10 or newer");
  }
  return api;
}

const Torch& torch_if_imported() {
  // After the first time this is all there is to do, in every call.
  if (torch_types.tensor != nullptr) return torch_types;
  const py::dict modules = py::module_::import("sys").attr("modules");
  if (!modules.contains("torch")) return torch_types;
  const py::object torch = modules["torch"];
  // Torch itself may be in the middle of its import.
  if (!py::hasattr(torch, "Tensor") || !py::hasattr(torch, "nn")) return torch_types;
  const py::object tensor = torch.attr("Tensor");
  const py::object parameter = torch.attr("nn").attr("Parameter");
  torch_types.api = exchange_api(tensor);
  torch_types.requires_grad = PyUnicode_InternFromString("requires_grad");
  torch_types.is_grad_enabled = py::object(torch.attr("is_grad_enabled")).release().ptr();
  torch_types.empty_like = py::object(torch.attr("empty_like")).release().ptr();
  torch_types.get_num_threads = py::object(torch.attr("get_num_threads")).release().ptr();
  torch_types.is_neg = py::object(tensor.attr("is_neg")).release().ptr();
  torch_types.is_conj = py::object(tensor.attr("is_conj")).release().ptr();
  torch_types.parameter = reinterpret_cast<PyTypeObject*>(parameter.inc_ref().ptr());
  torch_types.tensor = reinterpret_cast<PyTypeObject*>(tensor.inc_ref().ptr());
  return torch_types;
}

bool is_true(PyObject* result) {
  if (result == nullptr) throw py::error_already_set();
  const bool yes = result == Py_True;
  Py_DECREF(result);
  return yes;
}

DType dtype_of(dlpack::DataType dtype) {
  if (dtype.lanes != 1) return DType::kOther;
  if (dtype.code == dlpack::kFloat && dtype.bits == 32) return DType::kFloat32;
  if (dtype.code == dlpack::kBFloat && dtype.bits == 16) return DType::kBFloat16;
  if (dtype.code == dlpack::kFloat && dtype.bits == 16) return DType::kFloat16;
  if (dtype.code == dlpack::kComplex && dtype.bits == 64) return DType::kComplex64;
  if (dtype.code == dlpack::kInt && dtype.bits == 8) return DType::kInt8;
  return DType::kOther;
}

// Why torch would not show its memory.
[[noreturn]] void refuse_tensor(const char* where, const char* name, py::handle argument) {
  PyErr_Clear();
  const std::string what(name);
  const std::string layout = py::str(argument.attr("layout"));
  if (layout != "torch.strided") {
    refuse_type(where, what + " a dense tensor", layout, "convert it with .to_dense()");
  }
  refuse_type(where, what + " on the CPU or a CUDA device",
              std::string(py::str(argument.attr("device"))), "move it with .cpu()");
}

}  // namespace

bool torch_grad_enabled() {
  const Torch& torch = torch_if_imported();
  return torch.tensor != nullptr && is_true(PyObject_CallNoArgs(torch.is_grad_enabled));
}

bool torch_requires_grad(py::handle argument) {
  return is_true(PyObject_GetAttr(argument.ptr(), torch_types.requires_grad));
}

bool is_torch_subclass(py::handle argument) {
  return torch_types.tensor != nullptr && !is_torch(argument) &&
         PyObject_TypeCheck(argument.ptr(), torch_types.tensor);
}

bool is_torch(py::handle argument) {
  PyTypeObject* type = Py_TYPE(argument.ptr());
  return torch_types.tensor != nullptr &&
         (type == torch_types.tensor || type == torch_types.parameter);
}

Raw view_torch(const char* where, const char* name, py::handle argument) {
  dlpack::Tensor view;
  if (torch_types.api->view_of_object(argument.ptr(), &view) != 0) {
    refuse_tensor(where, name, argument);
  }
  const bool cuda = view.device.type == dlpack::kCUDA;
  if (!cuda && view.device.type != dlpack::kCPU) refuse_tensor(where, name, argument);
  Raw raw;
  raw.ndim = view.ndim;
  raw.dtype = dtype_of(view.dtype);
  raw.data = static_cast<char*>(view.data) + view.byte_offset;
  raw.device = {cuda, cuda ? view.device.index : 0};
  raw.writable = true;
  if (view.ndim > kMostDimensions) return raw;
  for (int axis = 0; axis < view.ndim; ++axis) {
    raw.shape[axis] = view.shape[axis];
    raw.strides[axis] = view.strides[axis] * (view.dtype.bits / 8);
  }
  return raw;
}

// What the memory of a torch tensor alone does not tell.
void check_torch(const char* where, const char* name, py::handle argument, DType dtype,
                 bool grad_enabled) {
  if (grad_enabled && torch_requires_grad(argument)) {
    refuse_value(where, std::string(name) + " without gradient",
                 "requires_grad=True while grad is enabled",
                 "use torch.no_grad() or " + std::string(name) + ".detach()");
  }
  if (is_true(PyObject_CallOneArg(torch_types.is_neg, argument.ptr())) ||
      (dtype == DType::kComplex64 &&
       is_true(PyObject_CallOneArg(torch_types.is_conj, argument.ptr())))) {
    refuse_type(where, std::string(name) + " without a conjugate or negative bit",
                "a lazy view with one", "use .resolve_conj().resolve_neg()");
  }
}

py::object torch_empty_like(py::handle argument) {
  auto made = py::reinterpret_steal<py::object>(
      PyObject_CallOneArg(torch_types.empty_like, argument.ptr()));
  if (!made) throw py::error_already_set();
  return made;
}

int torch_threads() {
  if (torch_if_imported().tensor == nullptr) return 0;
  const auto threads =
      py::reinterpret_steal<py::object>(PyObject_CallNoArgs(torch_types.get_num_threads));
  if (!threads) throw py::error_already_set();
  return threads.cast<int>();
}

void* current_stream(const char* where, Device device) {
  void* stream = nullptr;
  const Torch& torch = torch_if_imported();
  if (torch.api == nullptr || torch.api->current_stream == nullptr ||
      torch.api->current_stream(dlpack::kCUDA, device.index, &stream) != 0) {
    PyErr_Clear();
    refuse_value(where, "torch's current stream on " + device_name(device), "none",
                 "check torch.cuda.is_available()");
  }
  return stream;
}

}  // namespace cogit::python
