// _core.affine_apply: everything is checked into plain C++ values, then the kernel runs without
// the GIL.
#include <pybind11/pybind11.h>

#include "kernels/affine.h"
#include "python/arrays.h"

namespace cogit::python {
namespace {

namespace py = pybind11;

constexpr const char* kWhere = "affine_apply";

// `out` may be `h` itself; any other memory it shares, with anything, would be read after written.
void check_memory(const AffineF32& call, const Float32Rows& h, const Float32Rows& out) {
  const int64_t stride = out.stride < 0 ? -out.stride : out.stride;
  if (out.rows > 1 && stride < out.width) {
    refuse_value(kWhere, "out with rows of their own memory",
                 "a row stride of " + std::to_string(out.stride) + " elements for rows of " +
                     std::to_string(out.width),
                 "pass a new array");
  }
  const bool in_place = out.data == h.data && out.stride == h.stride;
  if (!in_place && share_memory(h, out)) {
    refuse_value(kWhere, "out to be h itself or memory of its own", "a partial overlap with h",
                 "pass a new array");
  }
  const auto shares = [&](const float* data, int64_t size) {
    return share_memory({const_cast<float*>(data), 1, size, size}, out);
  };
  const char* weight = shares(call.A, call.rank * call.d_model)   ? "A"
                       : shares(call.a0, call.rank)               ? "a0"
                       : shares(call.B, call.rank * call.d_model) ? "B"
                       : shares(call.c, call.d_model)             ? "c"
                       : call.strengths != nullptr && shares(call.strengths, call.rows)
                           ? "strengths"
                           : nullptr;
  if (weight != nullptr) {
    refuse_value(kWhere, "out to share no memory with the weights",
                 std::string("an overlap with ") + weight, "pass a new array");
  }
}

void affine(py::handle A, py::handle a0, py::handle B, py::handle c, bool restore, py::handle h,
            py::handle strengths, py::handle out) {
  const Float32Rows rows = view_float32(kWhere, "h", h, 2);
  const Float32Rows target = view_float32(kWhere, "out", out, 2, /*writable=*/true);
  const Float32Rows down = view_float32(kWhere, "A", A, 2);

  AffineF32 call{};
  call.rank = down.rows;
  call.d_model = down.width;
  call.A = view_weight(kWhere, "A", A, call.rank, call.d_model);
  call.a0 = view_weight(kWhere, "a0", a0, call.rank);
  call.B = view_weight(kWhere, "B", B, call.rank, call.d_model);
  call.c = view_weight(kWhere, "c", c, call.d_model);
  call.restore = restore;
  if (rows.width != call.d_model) {
    refuse_value(kWhere, "h of shape (n, " + std::to_string(call.d_model) + ")",
                 shape_text(rows.rows, rows.width), "use an affine of this model");
  }
  if (target.rows != rows.rows || target.width != rows.width) {
    refuse_value(kWhere, "out of h's shape " + shape_text(rows.rows, rows.width),
                 shape_text(target.rows, target.width), "pass an array like h");
  }
  if (!strengths.is_none()) {
    const Float32Rows per_row = view_float32(kWhere, "strengths", strengths, 1);
    if (per_row.width != rows.rows) {
      refuse_value(kWhere, "strengths of shape " + shape_text(rows.rows), shape_text(per_row.width),
                   "pass one strength for each row of h");
    }
    call.strengths = per_row.data;
  }
  call.h = rows.data;
  call.h_stride = rows.stride;
  call.out = target.data;
  call.out_stride = target.stride;
  call.rows = rows.rows;
  check_memory(call, rows, target);

  // Safe: only plain pointers are used, and the caller's references keep the arrays alive.
  const py::gil_scoped_release release;
  affine_apply(call);
}

}  // namespace

void register_affine(py::module_& module) {
  module.def("affine_apply", &affine, py::arg("A"), py::arg("a0"), py::arg("B"), py::arg("c"),
             py::arg("restore"), py::arg("h"), py::arg("strengths").none(true), py::arg("out"),
             "out = restore(h + strengths * ((h A^T + a0) B + c)), row by row, in float32.");
}

}  // namespace cogit::python
