// The affine kernels on the emulated device, both with clusters and without.
#include <cmath>
#include <type_traits>

#include "check.h"
#include "cuda_runtime.h"
#include "kernels/cuda/affine_select.cuh"
#include "rows.h"

namespace cogit::test {
namespace {

// How a call is run; its result must not depend on it.
struct Setup {
  bool clusters;
  int multiprocessors;  // few: many rows in a tile
  int64_t most_tiles;   // in flight at once; more are done in a loop
  uint64_t seed;
};

void run(const AffineCall& call, const Setup& setup) {
  const cuda::AffinePlan plan = cuda::plan_affine(call, setup.clusters, setup.multiprocessors);
  const int cluster = plan.cluster ? cuda::kSlices : 1;
  const int64_t blocks = std::min(plan.blocks, setup.most_tiles * cluster);
  std::vector<float> workspace(static_cast<size_t>(plan.workspace_floats), NAN);
  const cuda::AffineLaunch launch{
      call, plan.tiles, plan.workspace_floats > 0 ? workspace.data() : nullptr, plan.staged};
  emulation::machine().readable.clear();
  for (const float* weights : {call.A, call.B}) {
    emulation::allow(weights, 4 * call.rank * call.d_model);
  }
  emulation::allow(call.a0, 4 * call.rank);
  emulation::allow(call.c, 4 * call.d_model);
  emulation::allow(call.strengths, call.strengths == nullptr ? 0 : 4 * call.rows);
  const cuda::AffineKernel kernel = cuda::affine_kernel_for(plan, call.type);
  // Blocks that know nothing of each other run at the same time all the same.
  const int together = plan.cluster || blocks > 4 ? cluster : static_cast<int>(blocks);
  emulation::launch(blocks, plan.threads, plan.shared_bytes, together, setup.seed,
                    [&] { kernel(launch); });
}

struct Problem {
  std::string name;
  int64_t rank, d;
  std::vector<float> A, a0, B, c, strengths;
  bool restore;
};

Problem make_problem(int64_t rows, int64_t d, int64_t rank, bool restore) {
  const auto weights = uniforms(2 * rank * d);
  Problem p{"",
            rank,
            d,
            {weights.begin(), weights.begin() + rank * d},
            uniforms(rank),
            {weights.begin() + rank * d, weights.end()},
            uniforms(d),
            uniforms(rows),
            restore};
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  for (float& a : p.A) a *= scale;
  for (int64_t n = 0; n < rows; ++n) {
    if (n % 4 == 2) p.strengths[static_cast<size_t>(n)] = n % 8 == 2 ? 0.0f : -0.0f;
  }
  p.name = "affine rows " + std::to_string(rows) + " d " + std::to_string(d) + " rank " +
           std::to_string(rank) + (restore ? " restore" : "");
  return p;
}

// Weights that lie `shift` floats off 16-byte alignment.
struct Weights {
  std::vector<float4> memory;
  const float* place(const std::vector<float>& values, int64_t shift) {
    memory.resize((values.size() + static_cast<size_t>(shift)) / 4 + 1);
    float* at = reinterpret_cast<float*>(memory.data()) + shift;
    std::copy(values.begin(), values.end(), at);
    return at;
  }
};

void apply(const Problem& p, Rows& h, Rows& out, const Setup& setup, int64_t weight_shift = 0) {
  Weights A, B, c;
  AffineCall call{};
  call.A = A.place(p.A, weight_shift);
  call.a0 = p.a0.data();
  call.B = B.place(p.B, weight_shift);
  call.c = c.place(p.c, weight_shift);
  call.rank = p.rank;
  call.d_model = p.d;
  call.restore = p.restore;
  call.type = h.type;
  call.h = h.base();
  call.h_stride = h.stride;
  call.strengths = p.strengths.empty() ? nullptr : p.strengths.data();
  call.out = out.base();
  call.out_stride = out.stride;
  call.rows = h.count;
  run(call, setup);
}

std::vector<double> reference(const Problem& p, Rows& h, int64_t n) {
  const auto at = [](const std::vector<float>& v, int64_t i) {
    return static_cast<double>(v[static_cast<size_t>(i)]);
  };
  const double s = p.strengths.empty() ? 1.0 : at(p.strengths, n);
  std::vector<double> y(static_cast<size_t>(p.d));
  double before = 0, after = 0;
  for (int64_t j = 0; j < p.d; ++j) y[static_cast<size_t>(j)] = h.get(n, j) + s * at(p.c, j);
  for (int64_t i = 0; i < p.rank; ++i) {
    double u = at(p.a0, i);
    for (int64_t j = 0; j < p.d; ++j) u += h.get(n, j) * at(p.A, i * p.d + j);
    for (int64_t j = 0; j < p.d; ++j) y[static_cast<size_t>(j)] += s * u * at(p.B, i * p.d + j);
  }
  for (int64_t j = 0; j < p.d; ++j) {
    before += static_cast<double>(h.get(n, j)) * h.get(n, j);
    after += y[static_cast<size_t>(j)] * y[static_cast<size_t>(j)];
  }
  const double factor = p.restore && after > 0 ? std::sqrt(before / after) : 1.0;
  for (double& value : y) value *= factor;
  return y;
}

void fill(Rows& h) {
  for (int64_t n = 0; n < h.count; ++n) {
    for (int64_t j = 0; j < h.d; ++j) h.set(n, j, 3.0f * uniform());
  }
}

double row_error(const Problem& p, Rows& h, Rows& out, int64_t n) {
  const std::vector<double> want = reference(p, h, n);
  double error = 0, size = 1e-30;
  for (int64_t j = 0; j < p.d; ++j) {
    const double w = want[static_cast<size_t>(j)];
    error += (out.get(n, j) - w) * (out.get(n, j) - w);
    size += w * w;
  }
  return std::sqrt(error / size);
}

// Bytes of `out` outside its rows must still be the poison.
bool gaps_untouched(Rows& out) {
  std::vector<char> row_bytes(out.memory.size(), 0);
  const char* start = out.memory.data();
  for (int64_t n = 0; n < out.count; ++n) {
    std::memset(row_bytes.data() + (out.row(n) - start), 1, static_cast<size_t>(out.bytes()));
  }
  for (size_t i = 0; i < row_bytes.size(); ++i) {
    if (row_bytes[i] == 0 && static_cast<unsigned char>(start[i]) != Guarded::kGap) return false;
  }
  return true;
}

bool same_rows(Rows& a, Rows& b) {
  for (int64_t n = 0; n < a.count; ++n) {
    if (!same_bits(a.row(n), b.row(n), a.bytes())) return false;
  }
  return true;
}

const Setup kPlain{false, 1000, 1000, 1};

// Every way to run the call gives the bits of the first.
void check_setups(const Problem& p, Rows& h, Rows& expected) {
  const int64_t gap = p.d % 4 == 0 ? 4 : 3;
  int which = 0;
  for (const Setup& setup : {Setup{true, 1000, 1000, 2}, Setup{true, 17, 1, 3},
                             Setup{true, 1, 1, 4}, Setup{false, 1, 1, 5}}) {
    // Aligned and not, negative strides, in place.
    const bool odd = which % 2 == 1;
    Rows copy(h.type, h.count, p.d, which == 2 ? -(p.d + gap) : p.d + gap, odd ? 1 : 0);
    for (int64_t n = 0; n < h.count; ++n) {
      std::memcpy(copy.row(n), h.row(n), static_cast<size_t>(h.bytes()));
    }
    Rows out(h.type, h.count, p.d, p.d + 2 * gap, 0);
    Rows& target = which >= 2 ? copy : out;
    apply(p, copy, target, setup, odd ? 1 : 0);
    check(same_rows(target, expected), p.name + ": same bits, setup " + std::to_string(which));
    check(gaps_untouched(target), p.name + ": gaps, setup " + std::to_string(which));
    ++which;
  }
}

// The 16-bit result is the float32 one, rounded once.
void check_rounding(const Problem& p, Rows& h, Rows& out) {
  Rows wide(Float::kF32, h.count, p.d, p.d, 0), wide_out(Float::kF32, h.count, p.d, p.d, 0);
  Rows rounded(h.type, h.count, p.d, p.d, 0);
  for (int64_t n = 0; n < h.count; ++n) {
    for (int64_t j = 0; j < p.d; ++j) wide.set(n, j, h.get(n, j));
  }
  apply(p, wide, wide_out, kPlain);
  for (int64_t n = 0; n < h.count; ++n) {
    for (int64_t j = 0; j < p.d; ++j) rounded.set(n, j, wide_out.get(n, j));
  }
  check(same_rows(rounded, out), p.name + ": rounded once");
}

void test_case(Float type, int64_t rows, int64_t d, int64_t rank, bool restore) {
  Problem p = make_problem(rows, d, rank, restore);
  p.name += " type " + std::to_string(static_cast<int>(type));
  Rows h(type, rows, d, d, 0), out(type, rows, d, d, 0);
  fill(h);
  apply(p, h, out, kPlain);
  const double rounding = type == Float::kF32 ? 0 : type == Float::kBF16 ? 3e-3 : 4e-4;
  const double limit = rounding + 1e-6 * (1.0 + static_cast<double>(rank) / 1000.0);
  for (int64_t n = 0; n < rows; ++n) {
    const double error = row_error(p, h, out, n);
    check(error < limit,
          p.name + ": row " + std::to_string(n) + " off by " + std::to_string(error * 1e6) + "e-6");
    if (p.strengths[static_cast<size_t>(n)] == 0.0f) {
      check(same_bits(h.row(n), out.row(n), h.bytes()), p.name + ": strength 0");
    }
  }
  if (type != Float::kF32) check_rounding(p, h, out);
  check_setups(p, h, out);
}

// NaN stays in its row, and survives a copy bit for bit.
void test_nan(Float type, bool restore, bool clusters) {
  const Setup setup{clusters, 1, 1000, 7};
  const Problem p = make_problem(6, 36, 5, restore);
  Rows h(type, 6, 36, 36, 0), clean(type, 6, 36, 36, 0), out(type, 6, 36, 36, 0);
  fill(h);
  apply(p, h, clean, setup);
  h.set(1, 7, NAN);
  // A NaN with a payload and a negative zero, in a row of strength 0.
  const uint32_t payload = 0xffc12345u;
  std::memcpy(h.row(2) + 3 * size_of(type), &payload, static_cast<size_t>(size_of(type)));
  h.set(2, 5, -0.0f);
  apply(p, h, out, setup);
  for (int64_t n = 0; n < 6; ++n) {
    Rows& expected = n == 2 ? h : clean;
    if (n != 1) check(same_bits(out.row(n), expected.row(n), h.bytes()), p.name + ": beside NaN");
  }
  check(std::isnan(out.get(1, 7)), p.name + ": NaN stays NaN");
}

void test_unchanged(bool clusters) {
  Problem p = make_problem(5, 133, 3, true);
  std::fill(p.B.begin(), p.B.end(), 0.0f);
  std::fill(p.c.begin(), p.c.end(), 0.0f);
  p.strengths.clear();
  Rows h(Float::kF32, 5, 133, 133, 0), out(Float::kF32, 5, 133, 133, 0);
  fill(h);
  for (int64_t j = 0; j < p.d; ++j) h.set(3, j, 0.0f);
  apply(p, h, out, {clusters, 1000, 1000, 8});
  check(same_rows(h, out), "affine: a row that is not changed keeps its bits");
}

void test_all_copied(bool clusters) {
  Problem p = make_problem(9, 40, 3, true);
  std::fill(p.strengths.begin(), p.strengths.end(), 0.0f);
  Rows h(Float::kBF16, 9, 40, 40, 0), out(Float::kBF16, 9, 40, 40, 0);
  fill(h);
  apply(p, h, out, {clusters, 1, 1, 9});
  check(same_rows(h, out), "affine: all rows copied");
}

// Many orders of the threads; the rows are done in several rounds.
void test_schedules(bool clusters) {
  const Problem p = make_problem(5, 36, 9, true);
  Rows h(Float::kF32, 5, 36, 36, 0), expected(Float::kF32, 5, 36, 36, 0);
  Rows out(Float::kF32, 5, 36, 36, 0);
  fill(h);
  apply(p, h, expected, {clusters, 1000, 1000, 0});
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    apply(p, h, out, {clusters, clusters ? 17 : 1, 1, seed});
    check(same_rows(out, expected), "affine: same bits in any order of the threads");
  }
}

void test_plan() {
  AffineCall call{};
  call.d_model = 3584;
  call.rank = 16;
  call.restore = true;
  for (const auto& [rows, tile] : {std::pair{1, 1}, {16, 1}, {17, 2}, {32, 2}, {64, 4}, {999, 8}}) {
    call.rows = rows;
    const cuda::AffinePlan plan = cuda::plan_affine(call, true, 132);
    check(plan.cluster && plan.rows == tile && plan.staged, "affine: plan of decode sizes");
  }
  // Wide loads only where each of these allows them. Pointers are only looked at, not followed.
  const auto aligned = [&](auto change) {
    AffineCall changed = call;
    change(changed);
    return cuda::plan_affine(changed, true, 132).aligned;
  };
  const auto shift = [](auto*& pointer) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(uintptr_t{8});
  };
  check(aligned([](AffineCall&) {}), "affine: aligned");
  check(!aligned([&](AffineCall& c) { shift(c.A); }), "affine: A off");
  check(!aligned([&](AffineCall& c) { shift(c.B); }), "affine: B off");
  check(!aligned([&](AffineCall& c) { shift(c.c); }), "affine: c off");
  check(!aligned([&](AffineCall& c) { shift(c.h); }), "affine: h off");
  check(!aligned([&](AffineCall& c) { shift(c.out); }), "affine: out off");
  check(!aligned([&](AffineCall& c) { c.h_stride = 3585; }), "affine: odd stride of h");
  check(!aligned([&](AffineCall& c) { c.out_stride = -6; }), "affine: odd stride of out");
  check(!aligned([&](AffineCall& c) { c.d_model = 3586; }), "affine: d_model not of quads");
}

}  // namespace

void test_affine() {
  test_plan();
  for (const bool restore : {false, true}) {
    for (const Float type : {Float::kF32, Float::kBF16, Float::kF16}) {
      test_case(type, 5, 133, 5, restore);
      test_case(type, 9, 264, 3, restore);
      for (const bool clusters : {false, true}) test_nan(type, restore, clusters);
    }
    test_case(Float::kF32, 3, 1, 1, restore);
    test_case(Float::kF32, 2, 24, 0, restore);
    test_case(Float::kBF16, 1, 5000, 18, restore);  // more than one quad a thread
    test_case(Float::kF32, 2, 3584, 16, restore);
    test_case(Float::kF32, 2, 20, 200, restore);    // sums limit the rows of a tile
    test_case(Float::kF32, 3, 20, 1600, restore);   // sums in global memory
    test_case(Float::kF32, 1, 100000, 2, restore);  // rows do not fit shared memory
  }
  for (const bool clusters : {false, true}) {
    test_unchanged(clusters);
    test_all_copied(clusters);
    test_schedules(clusters);
  }
}

}  // namespace cogit::test
