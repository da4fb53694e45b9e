// _core.Affine: weights are checked once, then each call checks three tensors into plain C++ values
// and runs the kernel without the GIL.
#include <pybind11/pybind11.h>

#include "kernels/affine.h"
#include "kernels/cuda/cuda.h"
#include "kernels/finish.h"
#include "kernels/pool.h"
#include "python/tensor.h"

namespace cogit::python {
namespace {

namespace py = pybind11;

constexpr const char* kWhere = "affine_apply";
// Below this many products, some microseconds, letting go of the GIL costs more than it gives.
constexpr int64_t kAtOnce = int64_t{1} << 16;

Float float_of(DType dtype) {
  return dtype == DType::kFloat32    ? Float::kF32
         : dtype == DType::kBFloat16 ? Float::kBF16
                                     : Float::kF16;
}

void check_device(const char* name, Device got, Device weights) {
  if (got == weights) return;
  if (got.cuda && !cuda::built()) cuda::affine_apply({}, got.index, nullptr);  // says why not
  refuse_value(kWhere, std::string(name) + " on " + device_name(weights) + " like the weights",
               device_name(got), "move one of them");
}

class CompiledAffine {
 public:
  CompiledAffine(py::object A, py::object a0, py::object B, py::object c, bool restore)
      : owners_{A, a0, B, c} {
    const Arguments arguments(kWhere);
    down_ = arguments.rows("A", A, {DType::kFloat32});
    if (down_.ndim != 2) refuse_value(kWhere, "A of 2 dimensions", shape_text(A), "reshape it");
    const int64_t rank = down_.rows;
    const int64_t width = down_.width;
    const Device device = down_.device;
    down_ = arguments.weight("A", A, DType::kFloat32, {rank, width}, device);
    bias_ = arguments.weight("a0", a0, DType::kFloat32, {rank}, device);
    up_ = arguments.weight("B", B, DType::kFloat32, {rank, width}, device);
    shift_ = arguments.weight("c", c, DType::kFloat32, {width}, device);
    weights_.A = static_cast<const float*>(down_.data);
    weights_.a0 = static_cast<const float*>(bias_.data);
    weights_.B = static_cast<const float*>(up_.data);
    weights_.c = static_cast<const float*>(shift_.data);
    weights_.rank = rank;
    weights_.d_model = width;
    weights_.restore = restore;
  }

  // threads: 0 leaves it to torch where it is imported, else to set_threads.
  void apply(py::handle h, py::handle strengths, py::handle out, int threads) const {
    const Arguments arguments(kWhere);
    const Rows rows = view_stream(arguments, "h", h, /*writable=*/out.is(h));
    const Rows target = out.is(h) ? rows : view_stream(arguments, "out", out, /*writable=*/true);
    if (target.rows != rows.rows || target.dtype != rows.dtype) {
      refuse_value(kWhere, "out like h, " + shape_text(h) + " " + dtype_name(rows.dtype),
                   shape_text(out) + " " + dtype_name(target.dtype), "pass an array like h");
    }
    const bool in_place = target.data == rows.data && target.stride == rows.stride;
    check_output(
        kWhere, target,
        {{"A", down_}, {"a0", bias_}, {"B", up_}, {"c", shift_}, {"h", in_place ? Rows{} : rows}});
    Rows factors{};
    if (!strengths.is_none()) {
      factors = view_strengths(arguments, strengths, rows);
      check_output(kWhere, target, {{"strengths", factors}});
    }
    run(rows, factors, target, threads);
  }

  // The end of it, for matrix products made elsewhere: change is (h A^T + a0) B, like h.
  void finish(py::handle h, py::handle change, py::handle strengths, py::handle out) const {
    const Arguments arguments(kWhere);
    const Rows rows = view_stream(arguments, "h", h, /*writable=*/false);
    const Rows changes = view_stream(arguments, "change", change, /*writable=*/false);
    const Rows target = view_stream(arguments, "out", out, /*writable=*/true);
    if (rows.device.cuda) refuse_value(kWhere, "h on cpu", "cuda", "use apply");
    for (const Rows& other : {changes, target}) {
      if (other.rows == rows.rows && other.dtype == rows.dtype) continue;
      refuse_value(kWhere, "change and out like h, " + shape_text(h) + " " + dtype_name(rows.dtype),
                   std::to_string(other.rows) + " rows of " + dtype_name(other.dtype),
                   "pass arrays like h");
    }
    check_output(kWhere, target, {{"c", shift_}, {"h", rows}, {"change", changes}});
    Rows factors{};
    if (!strengths.is_none()) {
      factors = view_strengths(arguments, strengths, rows);
      check_output(kWhere, target, {{"strengths", factors}});
    }
    const FinishCall call{
        weights_.c,           weights_.d_model, weights_.restore,
        float_of(rows.dtype), rows.data,        rows.stride,
        changes.data,         changes.stride,   static_cast<const float*>(factors.data),
        target.data,          target.stride,    rows.rows};
    int threads = torch_threads();
    if (threads == 0) threads = thread_count();
    const py::gil_scoped_release release;
    affine_finish(call, threads);
  }

  // apply() into a new torch tensor; None where autograd has to go another way.
  py::object apply_new(py::handle h, py::handle strengths) const {
    const Arguments arguments(kWhere);
    if (arguments.needs_gradient(h) || arguments.needs_gradient(strengths)) return py::none();
    const Rows rows = view_stream(arguments, "h", h, /*writable=*/false);
    Rows factors{};
    if (!strengths.is_none()) factors = view_strengths(arguments, strengths, rows);
    py::object out;
    run(rows, factors, arguments.empty_like("h", h, out), 0);
    return out;
  }

 private:
  Rows view_stream(const Arguments& arguments, const char* name, py::handle argument,
                   bool writable) const {
    const Rows rows = arguments.rows(
        name, argument, {DType::kFloat32, DType::kBFloat16, DType::kFloat16}, writable);
    check_device(name, rows.device, down_.device);
    if (rows.ndim < 2 || rows.width != weights_.d_model) {
      refuse_value(
          kWhere,
          std::string(name) + " of shape (..., n, " + std::to_string(weights_.d_model) + ")",
          shape_text(argument), "use an affine of this model");
    }
    return rows;
  }

  static Rows view_strengths(const Arguments& arguments, py::handle strengths, const Rows& rows) {
    const Rows view = arguments.rows("strengths", strengths, {DType::kFloat32});
    check_device("strengths", view.device, rows.device);
    if (view.ndim != 1 || view.width != rows.rows) {
      refuse_value(kWhere, "strengths of shape " + shape_text({rows.rows}), shape_text(strengths),
                   "pass one strength for each row of h");
    }
    return view;
  }

  void run(const Rows& h, const Rows& strengths, const Rows& out, int threads) const {
    AffineCall call = weights_;
    call.type = float_of(h.dtype);
    call.h = h.data;
    call.h_stride = h.stride;
    call.strengths = static_cast<const float*>(strengths.data);
    call.out = out.data;
    call.out_stride = out.stride;
    call.rows = h.rows;
    if (h.device.cuda) {
      void* stream = current_stream(kWhere, h.device);
      const py::gil_scoped_release release;
      cuda::affine_apply(call, h.device.index, stream);
      return;
    }
    if (call.rows * call.d_model * (call.rank + 1) <= kAtOnce) {
      affine_apply(call, 1);
      return;
    }
    if (threads == 0) {
      threads = affine_is_small(call) ? 1 : torch_threads();
      if (threads == 0) threads = thread_count();
    }
    // Safe: only plain pointers are used, and the caller's references keep the arrays alive.
    const py::gil_scoped_release release;
    affine_apply(call, threads);
  }

  py::object owners_[4];  // keep the memory behind the weights
  Rows down_, bias_, up_, shift_;
  AffineCall weights_{};
};

}  // namespace

void register_affine(py::module_& module) {
  py::class_<CompiledAffine>(module, "Affine", "Low-rank affine with its weights checked.")
      .def(py::init<py::object, py::object, py::object, py::object, bool>(), py::arg("A"),
           py::arg("a0"), py::arg("B"), py::arg("c"), py::arg("restore"))
      .def("apply", &CompiledAffine::apply, py::arg("h"), py::arg("strengths").none(true),
           py::arg("out"), py::arg("threads") = 0,
           "out = restore(h + strengths * ((h A^T + a0) B + c)), row by row; sums in float32.")
      .def("finish", &CompiledAffine::finish, py::arg("h"), py::arg("change"),
           py::arg("strengths").none(true), py::arg("out"),
           "out = restore(h + strengths * (change + c)), for a change that was made elsewhere.")
      .def("apply_new", &CompiledAffine::apply_new, py::arg("h"), py::arg("strengths").none(true),
           "The same into a new torch tensor, or None where a gradient is wanted.");
}

}  // namespace cogit::python
