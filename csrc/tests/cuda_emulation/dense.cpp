// The dense kernels on the emulated device.
#include <cmath>
#include <complex>

#include "check.h"
#include "cuda_runtime.h"
#include "kernels/cuda/dense_kernel.cuh"

namespace cogit::test {
namespace {

using Complex = std::complex<double>;

struct Setup {
  bool interleaved;  // all blocks at once, instead of one after another
  int64_t most_blocks;
  uint64_t seed;
};

void run(const DenseCall& call, const Setup& setup) {
  const cuda::DensePlan plan = cuda::plan_dense(call);
  const int64_t blocks = std::min(plan.blocks, setup.most_blocks);
  std::vector<float> squares(static_cast<size_t>(plan.squares), NAN);
  std::vector<unsigned> tickets(static_cast<size_t>(plan.tiles), 0);
  const cuda::DenseLaunch launch{call, plan.row_groups, plan.tiles,
                                 squares.empty() ? nullptr : squares.data(), tickets.data()};
  const cuda::DenseKernel kernel = cuda::dense_kernel_for(plan, call.format);
  emulation::machine().readable.clear();
  const int64_t element = call.format == DenseFormat::kComplex64 ? 8
                          : call.format == DenseFormat::kBF16    ? 4
                                                                 : 2;
  emulation::allow(call.D, call.D == nullptr ? 0 : element * call.q * call.q);
  emulation::allow(call.scales, call.scales == nullptr ? 0 : 4 * call.q);
  emulation::allow(squares.data(), 4 * plan.squares);
  for (int64_t n = 0; n < call.batch; ++n) {
    emulation::allow(call.psi + 2 * n * call.psi_stride, 8 * call.q);
    emulation::allow(call.out + 2 * n * call.out_stride, 8 * call.q);
  }
  // A cluster of all blocks makes the emulation run them at the same time.
  emulation::launch(blocks, cuda::kDenseThreads, plan.shared_bytes,
                    setup.interleaved ? static_cast<int>(blocks) : 1, setup.seed,
                    [&] { kernel(launch); });
  for (const unsigned ticket : tickets) check(ticket == 0, "dense: tickets are back at 0");
}

// D in one of the formats, `shift` parts off 16-byte alignment (two parts make an element).
struct Matrix {
  DenseFormat format;
  int64_t q, shift;
  std::vector<float> scales;
  std::vector<float4> memory;
  std::vector<Complex> values;

  int64_t part_bytes() const {
    return format == DenseFormat::kComplex64 ? 4 : format == DenseFormat::kBF16 ? 2 : 1;
  }
  char* base() { return reinterpret_cast<char*>(memory.data()) + shift * part_bytes(); }

  Matrix(DenseFormat format_, int64_t q_, int64_t shift_)
      : format(format_), q(q_), shift(shift_), values(static_cast<size_t>(q_ * q_)) {
    memory.resize(static_cast<size_t>((2 * q * q + shift) * part_bytes() / 16 + 1));
    if (format == DenseFormat::kInt8) scales = uniforms(q);
    for (int64_t i = 0; i < q * q; ++i) {
      const double re = put(2 * i), im = put(2 * i + 1);
      values[static_cast<size_t>(i)] = {re, im};
    }
  }

  double put(int64_t part) {
    char* at = base() + part * part_bytes();
    if (format == DenseFormat::kInt8) {
      const auto value = static_cast<signed char>(draw(255) - 127);
      std::memcpy(at, &value, 1);
      return static_cast<double>(value) *
             static_cast<double>(scales[static_cast<size_t>(part / (2 * q))]);
    }
    const float value = uniform();
    if (format == DenseFormat::kComplex64) {
      std::memcpy(at, &value, 4);
      return value;
    }
    const uint16_t bits = cuda::BF16::round(value);
    std::memcpy(at, &bits, 2);
    return cuda::BF16::widen(bits);
  }
};

// States as rows of floats; shift 1 puts them off the alignment of a complex number.
struct States {
  int64_t count, q, stride, shift;
  std::vector<float> memory;

  States(int64_t count_, int64_t q_, int64_t stride_, int64_t shift_)
      : count(count_),
        q(q_),
        stride(stride_),
        shift(shift_),
        memory(static_cast<size_t>(2 * (count_ * std::abs(stride_) + q_) + shift_), 77.0f) {}
  // Vectors of floats begin at a multiple of 16 bytes, so only `shift` moves them.
  float* base() { return memory.data() + shift + (stride < 0 ? 2 * (count - 1) * -stride : 0); }
  float* row(int64_t n) { return base() + 2 * n * stride; }
};

States random_states(int64_t count, int64_t q, int64_t stride, int64_t shift) {
  States states(count, q, stride, shift);
  for (int64_t n = 0; n < count; ++n) {
    for (int64_t j = 0; j < 2 * q; ++j) states.row(n)[j] = uniform();
  }
  return states;
}

DenseCall make_call(Matrix& D, States& psi, States& out, float a, float b, bool normalise) {
  DenseCall call{};
  call.format = D.format;
  call.D = D.base();
  call.scales = D.scales.empty() ? nullptr : D.scales.data();
  call.q = D.q;
  call.psi = psi.base();
  call.psi_stride = psi.stride;
  call.out = out.base();
  call.out_stride = out.stride;
  call.batch = psi.count;
  call.a = a;
  call.b = b;
  call.normalise = normalise;
  return call;
}

double state_error(Matrix& D, States& psi, States& out, int64_t n, const DenseCall& call) {
  const float* x = psi.row(n);
  std::vector<Complex> want(static_cast<size_t>(D.q));
  double norm = 0, error = 0;
  for (int64_t i = 0; i < D.q; ++i) {
    Complex sum = 0;
    for (int64_t j = 0; j < D.q; ++j) {
      sum += D.values[static_cast<size_t>(i * D.q + j)] * Complex(x[2 * j], x[2 * j + 1]);
    }
    const Complex y = static_cast<double>(call.a) * Complex(x[2 * i], x[2 * i + 1]) +
                      static_cast<double>(call.b) * sum;
    want[static_cast<size_t>(i)] = y;
    norm += std::norm(y);
  }
  const double scale = call.normalise && norm > 0 ? 1 / std::sqrt(norm) : 1.0;
  for (int64_t i = 0; i < D.q; ++i) {
    const Complex got(out.row(n)[2 * i], out.row(n)[2 * i + 1]);
    error += std::norm(got - scale * want[static_cast<size_t>(i)]);
  }
  return std::sqrt(error / (norm * scale * scale + 1e-30));
}

bool same_states(States& a, States& b) {
  for (int64_t n = 0; n < a.count; ++n) {
    if (!same_bits(a.row(n), b.row(n), 8 * a.q)) return false;
  }
  return true;
}

void test_case(DenseFormat format, int64_t q, int64_t batch, bool normalise, int64_t shift) {
  const std::string name = "dense q " + std::to_string(q) + " batch " + std::to_string(batch) +
                           " format " + std::to_string(static_cast<int>(format)) + " shift " +
                           std::to_string(shift) + (normalise ? " normalise" : "");
  Matrix D(format, q, shift);
  States psi = random_states(batch, q, q + 3, shift % 2), out(batch, q, -(q + 1), 0);
  const DenseCall call = make_call(D, psi, out, 0.7f, 0.3f, normalise);
  run(call, {false, 1000, 1});
  for (int64_t n = 0; n < batch; ++n) {
    const double error = state_error(D, psi, out, n, call);
    check(error < 1e-6, name + ": off by " + std::to_string(error * 1e6) + "e-6");
  }
  // Bytes between the states are not touched.
  for (int64_t n = 0; n < batch; ++n) {
    check(out.row(n)[2 * q] == 77.0f && out.row(n)[2 * q + 1] == 77.0f, name + ": gaps");
  }
  States again(batch, q, q, 0);
  run(make_call(D, psi, again, 0.7f, 0.3f, normalise), {true, 3, 2});
  check(same_states(out, again), name + ": same bits with blocks at the same time");
  // A state alone gives the bits it has in the batch.
  const int64_t n = batch - 1;
  States one(1, q, q, 0), alone(1, q, q, 0);
  std::memcpy(one.row(0), psi.row(n), static_cast<size_t>(8 * q));
  one.shift = 0;
  if (shift % 2 == 0) {
    run(make_call(D, one, alone, 0.7f, 0.3f, normalise), {true, 1000, 3});
    check(same_bits(alone.row(0), out.row(n), 8 * q), name + ": same bits alone");
  }
}

// Many orders of the threads, of all four blocks at once or of one in several rounds.
void test_schedules() {
  Matrix D(DenseFormat::kComplex64, 17, 0);
  States psi = random_states(9, 17, 17, 0), expected(9, 17, 17, 0), out(9, 17, 17, 0);
  run(make_call(D, psi, expected, 1.0f, 0.5f, true), {false, 1000, 0});
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    run(make_call(D, psi, out, 1.0f, 0.5f, true), {true, seed % 4 == 0 ? 1 : 4, seed});
    check(same_states(out, expected), "dense: same bits in any order of the threads");
  }
}

void test_without_D(float a, bool normalise) {
  States psi = random_states(3, 37, 37, 0), out(3, 37, 37, 0);
  const uint32_t payload = 0xffc12345u;
  std::memcpy(psi.row(1) + 5, &payload, 4);
  psi.row(0)[4] = -0.0f;
  DenseCall call{};
  call.format = DenseFormat::kBF16;
  call.q = 37;
  call.psi = psi.base();
  call.psi_stride = call.out_stride = 37;
  call.out = out.base();
  call.batch = 3;
  call.a = a;
  call.normalise = normalise;
  run(call, {true, 1000, 4});  // D is null
  if (a == 1.0f && !normalise) check(same_states(psi, out), "dense: b = 0, a = 1 copies");
  double norm = 0;
  for (int64_t j = 0; j < 74; ++j) norm += static_cast<double>(out.row(2)[j]) * out.row(2)[j];
  if (normalise) check(std::fabs(norm - 1) < 1e-6, "dense: b = 0 normalises, beside NaN too");
}

void test_special_states() {
  Matrix D(DenseFormat::kComplex64, 21, 0);
  States psi = random_states(5, 21, 21, 0), clean(5, 21, 21, 0), out(5, 21, 21, 0);
  std::fill(psi.row(3), psi.row(3) + 42, 0.0f);
  run(make_call(D, psi, clean, 1.0f, 0.5f, true), {true, 1000, 5});
  for (int64_t j = 0; j < 42; ++j) check(clean.row(3)[j] == 0.0f, "dense: a zero state stays");
  psi.row(1)[8] = NAN;
  run(make_call(D, psi, out, 1.0f, 0.5f, true), {true, 1000, 6});
  for (int64_t n = 0; n < 5; ++n) {
    if (n != 1) check(same_bits(out.row(n), clean.row(n), 8 * 21), "dense: beside NaN");
  }
  check(std::isnan(out.row(1)[8]), "dense: NaN stays NaN");
}

}  // namespace

void test_dense() {
  for (const DenseFormat format :
       {DenseFormat::kComplex64, DenseFormat::kBF16, DenseFormat::kInt8}) {
    for (const bool normalise : {false, true}) {
      test_case(format, 37, 11, normalise, 0);
      test_case(format, 70, 3, normalise, 2);   // aligned to elements, not to pairs of them
      test_case(format, 301, 1, normalise, 0);  // more than one step, and a rest
      test_case(format, 33, 2, normalise, 1);   // not even aligned to elements
    }
    test_case(format, 1, 1, true, 0);
    test_case(format, 2, 5, false, 2);
  }
  for (const bool normalise : {false, true}) {
    for (const float a : {1.0f, 0.5f}) test_without_D(a, normalise);
  }
  test_special_states();
  test_schedules();
}

}  // namespace cogit::test
