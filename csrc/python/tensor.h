// torch tensors and NumPy arrays as plain pointers: nothing is converted or copied, everything is
// checked by hand, and a refusal is one line.
//
// pybind11's own typed arguments would print whole arrays in their error and never say that an
// array was merely not contiguous.
#pragma once

#include <pybind11/pybind11.h>
#include <stdint.h>

#include <initializer_list>
#include <string>

namespace cogit::python {

// Raise "[where] expected ..., got ...; do ..." as ValueError or TypeError.
[[noreturn]] void refuse_value(const char* where, const std::string& expected,
                               const std::string& got, const std::string& remedy);
[[noreturn]] void refuse_type(const char* where, const std::string& expected,
                              const std::string& got, const std::string& remedy);

enum class DType { kFloat32, kBFloat16, kFloat16, kComplex64, kInt8, kOther };

const char* dtype_name(DType dtype);
int64_t dtype_size(DType dtype);

// Where memory is; index counts GPUs.
struct Device {
  bool cuda;
  int index;

  bool operator==(const Device& other) const { return cuda == other.cuda && index == other.index; }
  bool operator!=(const Device& other) const { return !(*this == other); }
};

std::string device_name(Device device);

// An array whose last axis is contiguous and whose other axes walk through memory in equal steps:
// (..., width) seen as (rows, width).
struct Rows {
  void* data;
  DType dtype;
  Device device;
  int ndim;
  int64_t rows;    // the product of all axes but the last; 1 for a vector
  int64_t width;   // the last axis
  int64_t stride;  // elements from row to row; width where there is at most one row

  int64_t extent() const { return rows * width; }
};

// The arguments of one call of `where`, as which every refusal names itself.
class Arguments {
 public:
  explicit Arguments(const char* where);

  // Checks that an argument is a plain torch tensor or a NumPy array of one of these dtypes,
  // native, aligned, without a gradient to lose, without a lazy conjugation or negation, laid out
  // as Rows says and, if asked for, open to writing.
  Rows rows(const char* name, pybind11::handle argument, std::initializer_list<DType> dtypes,
            bool writable = false) const;

  // True where autograd would want to know of what happens to this argument.
  bool needs_gradient(pybind11::handle argument) const;

  // A new torch tensor like this one, and its view; nothing about it needs to be checked.
  Rows empty_like(const char* name, pybind11::handle argument, pybind11::object& made) const;

  // The same for a weight: contiguous, of exactly this shape, on this device.
  Rows weight(const char* name, pybind11::handle argument, DType dtype,
              std::initializer_list<int64_t> shape, Device device) const;

 private:
  const char* where_;
  bool grad_enabled_;
};

// "(3, 5)"
std::string shape_text(std::initializer_list<int64_t> shape);
std::string shape_text(pybind11::handle argument);

// True if any row of `some` shares a byte with any row of `others`, whose rows must not overlap
// among themselves. Exact: rows that merely interleave share nothing.
bool share_memory(const Rows& some, Rows others);

// Refuses an output whose own rows overlap, or that shares memory with one of the named inputs.
struct Input {
  const char* name;
  Rows rows;
};
void check_output(const char* where, const Rows& out, std::initializer_list<Input> inputs);

// The number of threads that torch would use; 0 where torch is not imported.
int torch_threads();

// The stream on which torch queues its work for a GPU.
void* current_stream(const char* where, Device device);

}  // namespace cogit::python
