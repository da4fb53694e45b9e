// Checks of NumPy arguments by hand: nothing is converted or copied, and a refusal is one line.
//
// pybind11's own typed arguments would print whole arrays in their error and never say that an
// array was merely not contiguous.
#pragma once

#include <pybind11/numpy.h>
#include <stdint.h>

#include <string>

namespace cogit::python {

// Raise "[where] expected ..., got ...; do ..." as ValueError or TypeError.
[[noreturn]] void refuse_value(const char* where, const std::string& expected,
                               const std::string& got, const std::string& remedy);
[[noreturn]] void refuse_type(const char* where, const std::string& expected,
                              const std::string& got, const std::string& remedy);

// A float32 array of one or two dimensions whose last stride is 1; a vector is one row.
struct Float32Rows {
  float* data;
  int64_t rows;
  int64_t width;
  int64_t stride;  // elements from row to row; width where there is at most one row
};

// Checks type, dtype, byte order, alignment, dimensions (1 or 2), last stride and, if asked for,
// that the array can be written.
Float32Rows view_float32(const char* where, const char* name, pybind11::handle argument,
                         int dimensions, bool writable = false);

// The same for a weight: a contiguous array of exactly this shape.
const float* view_weight(const char* where, const char* name, pybind11::handle argument,
                         int64_t width);
const float* view_weight(const char* where, const char* name, pybind11::handle argument,
                         int64_t rows, int64_t width);

// "(3, 5)"
std::string shape_text(int64_t rows, int64_t width);
std::string shape_text(int64_t width);

// True if any row of `some` shares an element with any row of `others`, whose rows must not overlap
// among themselves. Exact: rows that merely interleave share nothing.
bool share_memory(const Float32Rows& some, Float32Rows others);

}  // namespace cogit::python
