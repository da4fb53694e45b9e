#include "python/tensor.h"

#include <pybind11/numpy.h>

#include "python/torch_tensor.h"

namespace cogit::python {
namespace {

namespace py = pybind11;

std::string line(const char* where, const std::string& expected, const std::string& got,
                 const std::string& remedy) {
  return "[" + std::string(where) + "] expected " + expected + ", got " + got + "; " + remedy;
}

std::string type_name(py::handle argument) {
  return py::str(py::type::handle_of(argument).attr("__name__"));
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
  refuse_type(where,
              std::string(name) +
                  (is_torch_subclass(argument) ? " as a plain tensor" : " as a tensor or an array"),
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

Arguments::Arguments(const char* where) : where_(where), grad_enabled_(torch_grad_enabled()) {}

Rows Arguments::rows(const char* name, py::handle argument, std::initializer_list<DType> dtypes,
                     bool writable) const {
  const char* where = where_;
  const Raw raw = take(where, name, argument, grad_enabled_);
  check_dtype(where, name, argument, raw.dtype, dtypes);
  return layout(where, name, raw, writable);
}

bool Arguments::needs_gradient(py::handle argument) const {
  return grad_enabled_ && is_torch(argument) && torch_requires_grad(argument);
}

Rows Arguments::empty_like(const char* name, py::handle argument, py::object& made) const {
  if (!is_torch(argument)) {
    refuse_type(where_, std::string(name) + " as a plain tensor", type_name(argument),
                "pass a torch.Tensor");
  }
  made = torch_empty_like(argument);
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

}  // namespace cogit::python
