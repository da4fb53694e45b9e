#include "python/arrays.h"

namespace cogit::python {
namespace {

namespace py = pybind11;

constexpr py::ssize_t kItem = sizeof(float);

std::string line(const char* where, const std::string& expected, const std::string& got,
                 const std::string& remedy) {
  return "[" + std::string(where) + "] expected " + expected + ", got " + got + "; " + remedy;
}

std::string type_name(py::handle argument) {
  return py::str(py::type::handle_of(argument).attr("__name__"));
}

bool is_native_float32(const py::array& array) {
  const py::dtype dtype = array.dtype();
  return dtype.num() == py::detail::npy_api::NPY_FLOAT_ && dtype.byteorder() == '=';
}

// The addresses of one row, as integers: pointers into different arrays have no order.
struct Span {
  intptr_t begin;
  intptr_t end;
};

Span row_span(const Float32Rows& rows, int64_t row) {
  const intptr_t begin =
      reinterpret_cast<intptr_t>(rows.data) + static_cast<intptr_t>(row * rows.stride * kItem);
  return {begin, begin + static_cast<intptr_t>(rows.width * kItem)};
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

std::string shape_text(int64_t rows, int64_t width) {
  return "(" + std::to_string(rows) + ", " + std::to_string(width) + ")";
}

std::string shape_text(int64_t width) { return "(" + std::to_string(width) + ",)"; }

Float32Rows view_float32(const char* where, const char* name, py::handle argument, int dimensions,
                         bool writable) {
  const std::string what(name);
  if (!py::isinstance<py::array>(argument)) {
    refuse_type(where, what + " as a NumPy array", type_name(argument),
                "pass a float32 numpy.ndarray");
  }
  const auto array = py::reinterpret_borrow<py::array>(argument);
  if (!is_native_float32(array)) {
    refuse_type(where, what + " of dtype float32", std::string(py::str(array.dtype())),
                "convert it with .astype(numpy.float32)");
  }
  if (array.ndim() != dimensions) {
    refuse_value(where, what + " of " + std::to_string(dimensions) + " dimension(s)",
                 std::to_string(array.ndim()), "reshape it");
  }
  if (writable && !array.writeable()) {
    refuse_value(where, what + " that can be written", "a read-only array", "pass a copy");
  }
  Float32Rows view{};
  view.data = static_cast<float*>(const_cast<void*>(array.data()));
  view.rows = dimensions == 2 ? array.shape(0) : 1;
  view.width = array.shape(dimensions - 1);
  view.stride = view.width;
  if (view.rows == 0 || view.width == 0) return view;
  if (view.width > 1 && array.strides(dimensions - 1) != kItem) {
    refuse_value(where, what + " with adjacent elements in each row",
                 "a last stride of " + std::to_string(array.strides(dimensions - 1)) + " bytes",
                 "pass a contiguous array");
  }
  const py::ssize_t row_bytes = view.rows > 1 ? array.strides(0) : view.width * kItem;
  if (reinterpret_cast<uintptr_t>(view.data) % alignof(float) != 0 || row_bytes % kItem != 0) {
    refuse_value(where, what + " aligned to " + std::to_string(kItem) + " bytes",
                 "an unaligned array", "pass a copy");
  }
  view.stride = row_bytes / kItem;
  return view;
}

const float* view_weight(const char* where, const char* name, py::handle argument, int64_t width) {
  const Float32Rows view = view_float32(where, name, argument, 1);
  if (view.width != width) {
    refuse_value(where, std::string(name) + " of shape " + shape_text(width),
                 shape_text(view.width), "make the weights of one affine agree");
  }
  return view.data;
}

const float* view_weight(const char* where, const char* name, py::handle argument, int64_t rows,
                         int64_t width) {
  const Float32Rows view = view_float32(where, name, argument, 2);
  if (view.rows != rows || view.width != width) {
    refuse_value(where, std::string(name) + " of shape " + shape_text(rows, width),
                 shape_text(view.rows, view.width), "make the weights of one affine agree");
  }
  if (view.stride != view.width) {
    refuse_value(where, std::string(name) + " with adjacent rows",
                 "a row stride of " + std::to_string(view.stride) + " elements",
                 "pass numpy.ascontiguousarray(" + std::string(name) + ")");
  }
  return view.data;
}

bool share_memory(const Float32Rows& some, Float32Rows others) {
  if (some.rows == 0 || some.width == 0 || others.rows == 0 || others.width == 0) return false;
  if (others.stride < 0) {
    others.data += (others.rows - 1) * others.stride;
    others.stride = -others.stride;
  }
  const Span all = {row_span(others, 0).begin, row_span(others, others.rows - 1).end};
  const Span low = row_span(some, some.stride < 0 ? some.rows - 1 : 0);
  const Span high = row_span(some, some.stride < 0 ? 0 : some.rows - 1);
  if (high.end <= all.begin || low.begin >= all.end) return false;

  const intptr_t step = static_cast<intptr_t>(others.stride * kItem);
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

}  // namespace cogit::python
