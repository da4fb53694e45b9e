#include "python/tensor.h"

#include <pybind11/numpy.h>

#include "python/dlpack.h"

namespace cogit::python {
namespace {

namespace py = pybind11;

constexpr int kMostDimensions = 8;

// An argument before it is known to be usable.
struct Raw {
  void* data;
  DType dtype;
  Device device;
  int ndim;
  int64_t shape[kMostDimensions];
  int64_t strides[kMostDimensions];  // bytes
  bool writable;
};

std::string line(const char* where, const std::string& expected, const std::string& got,
                 const std::string& remedy) {
  return "[" + std::string(where) + "] expected " + expected + ", got " + got + "; " + remedy;
}

std::string type_name(py::handle argument) {
  return py::str(py::type::handle_of(argument).attr("__name__"));
}

// ---- torch ----

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

bool has_true(py::handle argument, PyObject* attribute) {
  return is_true(PyObject_GetAttr(argument.ptr(), attribute));
}

// What the memory of a torch tensor alone does not tell.
void check_torch(const char* where, const char* name, py::handle argument, DType dtype,
                 bool grad_enabled) {
  if (grad_enabled && has_true(argument, torch_types.requires_grad)) {
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

// ---- NumPy ----

DType dtype_of(const py::dtype& dtype) {
  if (dtype.byteorder() != '=' && dtype.byteorder() != '|') return DType::kOther;
  switch (dtype.num()) {
    case py::detail::npy_api::NPY_FLOAT_:
      return DType::kFloat32;
    case 23:  // NPY_HALF, which pybind11 does not list
      return DType::kFloat16;
    case py::detail::npy_api::NPY_CFLOAT_:
      return DType::kComplex64;
    case py::detail::npy_api::NPY_BYTE_:
      return DType::kInt8;
    default:
      return DType::kOther;
  }
}

Raw view_numpy(const py::array& array) {
  Raw raw;
  raw.data = const_cast<void*>(array.data());
  raw.dtype = dtype_of(array.dtype());
  raw.device = {false, 0};
  raw.ndim = static_cast<int>(array.ndim());
  raw.writable = array.writeable();
  if (raw.ndim > kMostDimensions) return raw;
  for (int axis = 0; axis < raw.ndim; ++axis) {
    raw.shape[axis] = array.shape(axis);
    raw.strides[axis] = array.strides(axis);
  }
  return raw;
}

// ---- both ----

Raw take(const char* where, const char* name, py::handle argument, bool grad_enabled) {
  if (is_torch(argument)) {
    const Raw raw = view_torch(where, name, argument);
    check_torch(where, name, argument, raw.dtype, grad_enabled);
    return raw;
  }
  if (py::isinstance<py::array>(argument)) {
    return view_numpy(py::reinterpret_borrow<py::array>(argument));
  }
  const bool subclass =
      torch_types.tensor != nullptr && PyObject_TypeCheck(argument.ptr(), torch_types.tensor);
  refuse_type(where,
              std::string(name) + (subclass ? " as a plain tensor" : " as a tensor or an array"),
              type_name(argument), "pass a torch.Tensor or a numpy.ndarray");
}

void check_dtype(const char* where, const char* name, py::handle argument, DType got,
                 std::initializer_list<DType> dtypes) {
  std::string names;
  for (const DType dtype : dtypes) {
    if (dtype == got) return;
    names += (names.empty() ? "" : " or ") + std::string(dtype_name(dtype));
  }
  refuse_type(where, std::string(name) + " of dtype " + names,
              std::string(py::str(argument.attr("dtype"))), "convert it");
}

// The addresses of one row, as integers: pointers into different arrays have no order.
struct Span {
  intptr_t begin;
  intptr_t end;
};

Span row_span(const Rows& rows, int64_t row) {
  const int64_t size = dtype_size(rows.dtype);
  const intptr_t begin =
      reinterpret_cast<intptr_t>(rows.data) + static_cast<intptr_t>(row * rows.stride * size);
  return {begin, begin + static_cast<intptr_t>(rows.width * size)};
}

// A view as rows, or a refusal of how it lies in memory.
Rows layout(const char* where, const char* name, const Raw& raw, bool writable) {
  const std::string what(name);
  if (raw.ndim > kMostDimensions) {
    refuse_value(where, what + " of at most " + std::to_string(kMostDimensions) + " dimensions",
                 std::to_string(raw.ndim), "reshape it");
  }
  if (raw.ndim == 0) {
    refuse_value(where, what + " of at least 1 dimension", "a scalar", "reshape it");
  }
  if (writable && !raw.writable) {
    refuse_value(where, what + " that can be written", "a read-only array", "pass a copy");
  }
  const int64_t size = dtype_size(raw.dtype);
  Rows view{raw.data, raw.dtype, raw.device, raw.ndim, 1, raw.shape[raw.ndim - 1], 0};
  for (int axis = 0; axis < raw.ndim - 1; ++axis) view.rows *= raw.shape[axis];
  view.stride = view.width;
  if (view.rows == 0 || view.width == 0) return view;
  if (view.width > 1 && raw.strides[raw.ndim - 1] != size) {
    refuse_value(where, what + " with adjacent elements in each row",
                 "a last stride of " + std::to_string(raw.strides[raw.ndim - 1]) + " bytes",
                 "pass a contiguous array");
  }
  // Axes of one element have strides without meaning; the others must follow from each other.
  bool stepped = false;
  int64_t step = 0;
  int64_t covered = 1;
  for (int axis = raw.ndim - 2; axis >= 0; --axis) {
    if (raw.shape[axis] == 1) continue;
    if (!stepped) step = raw.strides[axis];
    if (raw.strides[axis] != step * covered) {
      refuse_value(where, what + " with rows at equal distances",
                   "axes that do not follow from each other", "pass a contiguous array");
    }
    stepped = true;
    covered *= raw.shape[axis];
  }
  if (reinterpret_cast<uintptr_t>(view.data) % static_cast<uintptr_t>(size == 8 ? 4 : size) != 0 ||
      step % size != 0) {
    refuse_value(where, what + " aligned to its elements", "an unaligned array", "pass a copy");
  }
  if (view.rows > 1) view.stride = step / size;
  return view;
}

}  // namespace

void refuse_value(const char* where, const std::string& expected, const std::string& got,
                  const std::string& remedy) {
  throw py::value_error(line(where, expected, got, remedy));
}

void refuse_type(const char* where, const std::string& expected, const std::string& got,
                 const std::string& remedy) {
  throw py::type_error(line(where, expected, got, remedy));
}

const char* dtype_name(DType dtype) {
  constexpr const char* kNames[] = {"float32",   "bfloat16", "float16",
                                    "complex64", "int8",     "another"};
  return kNames[static_cast<int>(dtype)];
}

int64_t dtype_size(DType dtype) {
  constexpr int64_t kSizes[] = {4, 2, 2, 8, 1, 1};
  return kSizes[static_cast<int>(dtype)];
}

std::string device_name(Device device) {
  return device.cuda ? "cuda:" + std::to_string(device.index) : "cpu";
}

std::string shape_text(std::initializer_list<int64_t> shape) {
  std::string text = "(";
  for (const int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + (shape.size() == 1 ? ",)" : ")");
}

std::string shape_text(py::handle argument) {
  // torch's own sizes would print as torch.Size([...]).
  return py::str(py::tuple(py::list(argument.attr("shape"))));
}

Arguments::Arguments(const char* where) : where_(where) {
  const Torch& torch = torch_if_imported();
  grad_enabled_ = torch.tensor != nullptr && is_true(PyObject_CallNoArgs(torch.is_grad_enabled));
}

Rows Arguments::rows(const char* name, py::handle argument, std::initializer_list<DType> dtypes,
                     bool writable) const {
  const char* where = where_;
  const Raw raw = take(where, name, argument, grad_enabled_);
  check_dtype(where, name, argument, raw.dtype, dtypes);
  return layout(where, name, raw, writable);
}

bool Arguments::needs_gradient(py::handle argument) const {
  return grad_enabled_ && is_torch(argument) && has_true(argument, torch_types.requires_grad);
}

Rows Arguments::empty_like(const char* name, py::handle argument, py::object& made) const {
  if (!is_torch(argument)) {
    refuse_type(where_, std::string(name) + " as a plain tensor", type_name(argument),
                "pass a torch.Tensor");
  }
  PyObject* result = PyObject_CallOneArg(torch_types.empty_like, argument.ptr());
  if (result == nullptr) throw py::error_already_set();
  made = py::reinterpret_steal<py::object>(result);
  return layout(where_, name, view_torch(where_, name, made), false);
}

Rows Arguments::weight(const char* name, py::handle argument, DType dtype,
                       std::initializer_list<int64_t> shape, Device device) const {
  const char* where = where_;
  const Rows view = rows(name, argument, {dtype});
  const int64_t width = *(shape.end() - 1);
  const int64_t count = shape.size() == 2 ? *shape.begin() : 1;
  if (view.ndim != static_cast<int>(shape.size()) || view.width != width || view.rows != count) {
    refuse_value(where, std::string(name) + " of shape " + shape_text(shape), shape_text(argument),
                 "make the weights agree");
  }
  if (view.stride != view.width) {
    refuse_value(where, std::string(name) + " with adjacent rows",
                 "a row stride of " + std::to_string(view.stride) + " elements",
                 "pass a contiguous array");
  }
  if (view.device != device) {
    refuse_value(where, std::string(name) + " on " + device_name(device), device_name(view.device),
                 "put all weights on one device");
  }
  return view;
}

bool share_memory(const Rows& some, Rows others) {
  if (some.extent() == 0 || others.extent() == 0 || some.device != others.device) return false;
  const int64_t size = dtype_size(others.dtype);
  if (others.stride < 0) {
    others.data = static_cast<char*>(others.data) + (others.rows - 1) * others.stride * size;
    others.stride = -others.stride;
  }
  const Span all = {row_span(others, 0).begin, row_span(others, others.rows - 1).end};
  const Span low = row_span(some, some.stride < 0 ? some.rows - 1 : 0);
  const Span high = row_span(some, some.stride < 0 ? 0 : some.rows - 1);
  if (high.end <= all.begin || low.begin >= all.end) return false;

  const auto step = static_cast<intptr_t>(others.stride * size);
  for (int64_t row = 0; row < some.rows; ++row) {
    const Span span = row_span(some, row);
    if (span.end <= all.begin || span.begin >= all.end) continue;
    // Of the other rows that begin before this one ends, the last ends last.
    const intptr_t steps = (span.end - 1 - all.begin) / (step > 0 ? step : 1);
    const int64_t last = steps < others.rows - 1 ? static_cast<int64_t>(steps) : others.rows - 1;
    if (row_span(others, last).end > span.begin) return true;
  }
  return false;
}

void check_output(const char* where, const Rows& out, std::initializer_list<Input> inputs) {
  const int64_t stride = out.stride < 0 ? -out.stride : out.stride;
  if (out.rows > 1 && stride < out.width) {
    refuse_value(where, "out with rows of their own memory",
                 "a row stride of " + std::to_string(out.stride) + " elements for rows of " +
                     std::to_string(out.width),
                 "pass a new array");
  }
  for (const Input& input : inputs) {
    if (share_memory(input.rows, out)) {
      refuse_value(where, "out with memory of its own",
                   std::string("an overlap with ") + input.name, "pass a new array");
    }
  }
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
