// _core.dense_apply: the dense complex operator on torch tensors and NumPy arrays.
#include <pybind11/pybind11.h>

#include "kernels/cuda/cuda.h"
#include "kernels/dense.h"
#include "kernels/finish.h"
#include "kernels/pool.h"
#include "python/tensor.h"

namespace cogit::python {
namespace {

namespace py = pybind11;

constexpr const char* kWhere = "dense_apply";

// The stored change: (q, q) complex64, or (q, q, 2) bfloat16 or int8 pairs.
DenseCall view_change(const Arguments& arguments, py::handle D, py::handle scales, Rows& change,
                      Rows& scale) {
  change = arguments.rows("D", D, {DType::kComplex64, DType::kBFloat16, DType::kInt8});
  const bool pairs = change.dtype != DType::kComplex64;
  // (q, q, 2) reads as q * q rows of 2, (q, q) as q rows of q.
  const int64_t q =
      py::tuple(py::reinterpret_borrow<py::object>(D.attr("shape")))[0].cast<int64_t>();
  const int64_t rows = pairs ? q * q : q;
  const int64_t width = pairs ? 2 : q;
  if (change.ndim != (pairs ? 3 : 2) || change.rows != rows || change.width != width) {
    refuse_value(
        kWhere,
        pairs ? "D of shape (q, q, 2): pairs of real and imaginary part" : "D of shape (q, q)",
        shape_text(D), "pass a square operator");
  }
  if (change.stride != width) {
    refuse_value(kWhere, "D with adjacent rows",
                 "a row stride of " + std::to_string(change.stride) + " elements",
                 "pass a contiguous array");
  }
  DenseCall call{};
  call.format = change.dtype == DType::kComplex64  ? DenseFormat::kComplex64
                : change.dtype == DType::kBFloat16 ? DenseFormat::kBF16
                                                   : DenseFormat::kInt8;
  call.D = change.data;
  call.q = q;
  const bool wanted = call.format == DenseFormat::kInt8;
  if (wanted == scales.is_none()) {
    refuse_value(kWhere, wanted ? "scales with an int8 D" : "no scales with a D that is not int8",
                 wanted ? "none" : "some", wanted ? "pass one for each row" : "leave them out");
  }
  scale = Rows{};
  if (wanted) {
    scale = arguments.weight("scales", scales, DType::kFloat32, {q}, change.device);
    call.scales = static_cast<const float*>(scale.data);
  }
  return call;
}

Rows view_states(const Arguments& arguments, const char* name, py::handle argument,
                 const DenseCall& call, Device device, bool writable) {
  const Rows rows = arguments.rows(name, argument, {DType::kComplex64}, writable);
  if (rows.device != device) {
    if (rows.device.cuda && !cuda::built()) cuda::dense_apply({}, rows.device.index, nullptr);
    refuse_value(kWhere, std::string(name) + " on " + device_name(device) + " like D",
                 device_name(rows.device), "move one of them");
  }
  if (rows.ndim < 2 || rows.width != call.q) {
    refuse_value(kWhere, std::string(name) + " of shape (..., n, " + std::to_string(call.q) + ")",
                 shape_text(argument), "use an operator of this size");
  }
  return rows;
}

void dense(py::handle D, py::handle scales, py::handle psi, py::handle out, double a, double b,
           bool normalise, int threads) {
  const Arguments arguments(kWhere);
  Rows change, scale;
  DenseCall call = view_change(arguments, D, scales, change, scale);
  const Rows states = view_states(arguments, "psi", psi, call, change.device, false);
  const Rows target = view_states(arguments, "out", out, call, change.device, true);
  if (target.rows != states.rows) {
    refuse_value(kWhere, "out of psi's shape " + shape_text(psi), shape_text(out),
                 "pass an array like psi");
  }
  check_output(kWhere, target, {{"D", change}, {"scales", scale}, {"psi", states}});
  call.psi = static_cast<const float*>(states.data);
  call.psi_stride = states.stride;
  call.out = static_cast<float*>(target.data);
  call.out_stride = target.stride;
  call.batch = states.rows;
  call.a = static_cast<float>(a);
  call.b = static_cast<float>(b);
  call.normalise = normalise;
  void* stream = change.device.cuda ? current_stream(kWhere, change.device) : nullptr;
  if (threads == 0) threads = torch_threads();
  if (threads == 0) threads = thread_count();
  // Safe: only plain pointers are used, and the caller's references keep the arrays alive.
  const py::gil_scoped_release release;
  if (change.device.cuda) {
    cuda::dense_apply(call, change.device.index, stream);
  } else {
    dense_apply(call, threads);
  }
}

// For a matrix product made elsewhere: refuses what dense_apply would refuse, before it is made.
void check_dense(py::handle D, py::handle scales, py::handle psi) {
  const Arguments arguments(kWhere);
  Rows change, scale;
  const DenseCall call = view_change(arguments, D, scales, change, scale);
  view_states(arguments, "psi", psi, call, change.device, false);
}

// The stored change as complex64.
void unpack_dense(py::handle D, py::handle scales, py::handle out) {
  const Arguments arguments(kWhere);
  Rows change, scale;
  const DenseCall call = view_change(arguments, D, scales, change, scale);
  const Rows target = view_states(arguments, "out", out, call, change.device, true);
  if (change.device.cuda || call.format == DenseFormat::kComplex64) {
    refuse_value(kWhere, "D as pairs on cpu", shape_text(D) + " on " + device_name(change.device),
                 "use it as it is");
  }
  if (target.rows != call.q || target.stride != call.q) {
    refuse_value(kWhere, "out of shape " + shape_text({call.q, call.q}) + " with adjacent rows",
                 shape_text(out), "pass a contiguous array");
  }
  check_output(kWhere, target, {{"D", change}, {"scales", scale}});
  int threads = torch_threads();
  if (threads == 0) threads = thread_count();
  const py::gil_scoped_release release;
  dense_unpack(call, static_cast<float*>(target.data), threads);
}

// The end of it: change is D psi, and becomes the result.
void finish_dense(py::handle psi, py::handle change, double a, double b, bool normalise) {
  const Arguments arguments(kWhere);
  const Rows states = arguments.rows("psi", psi, {DType::kComplex64});
  const Rows target = arguments.rows("change", change, {DType::kComplex64}, true);
  if (states.device.cuda || target.device.cuda) {
    refuse_value(kWhere, "psi and change on cpu", "cuda", "use dense_apply");
  }
  if (target.rows != states.rows || target.width != states.width) {
    refuse_value(kWhere, "change of psi's shape " + shape_text(psi), shape_text(change),
                 "pass an array like psi");
  }
  check_output(kWhere, target, {{"psi", states}});
  const DenseFinishCall call{states.width,
                             static_cast<const float*>(states.data),
                             states.stride,
                             static_cast<float*>(target.data),
                             target.stride,
                             states.rows,
                             static_cast<float>(a),
                             static_cast<float>(b),
                             normalise};
  int threads = torch_threads();
  if (threads == 0) threads = thread_count();
  const py::gil_scoped_release release;
  dense_finish(call, threads);
}

}  // namespace

void register_dense(py::module_& module) {
  module.def("dense_apply", &dense, py::arg("D"), py::arg("scales").none(true), py::arg("psi"),
             py::arg("out"), py::arg("a"), py::arg("b"), py::arg("normalise"),
             py::arg("threads") = 0,
             "out = normalise(a * psi + b * D psi) for each state; D is U - I as complex64, "
             "bfloat16 pairs or int8 pairs with row scales.");
  module.def("dense_check", &check_dense, py::arg("D"), py::arg("scales").none(true),
             py::arg("psi"), "Raises what dense_apply would raise for these.");
  module.def("dense_unpack", &unpack_dense, py::arg("D"), py::arg("scales").none(true),
             py::arg("out"), "out = D, stored as bfloat16 or int8 pairs, as complex64.");
  module.def("dense_finish", &finish_dense, py::arg("psi"), py::arg("change"), py::arg("a"),
             py::arg("b"), py::arg("normalise"),
             "change = normalise(a * psi + b * change), for change = D psi made elsewhere.");
}

}  // namespace cogit::python
