// The dense kernel; dense_plan.h says how rows and states are shared out.
//
// A warp takes a few rows of D at once; a lane takes two adjacent columns at a time. With q odd,
// every other row begins off the alignment of such a load: its first column is then taken alone.
// The rows of a warp lie an even number of rows apart, so they agree on this.
//
// To normalise, each block leaves its part of |x|^2 in global memory, and the last block of a tile
// to finish adds the parts up, always in the same order, and rescales the tile.
#pragma once

#include "kernels/cuda/dense_plan.h"
#include "kernels/cuda/device.cuh"

namespace cogit::cuda {

// ---- formats of D ----

// Two adjacent elements of D.
struct TwoElements {
  float re[2];
  float im[2];
};

struct Complex64 {
  static constexpr DenseFormat kFormat = DenseFormat::kComplex64;
  static constexpr int kMinBlocks = 3;
  using Part = float;  // half an element
  using Raw = float4;  // two elements
  static __device__ Raw join(const Part (&p)[4]) { return make_float4(p[0], p[1], p[2], p[3]); }
  static __device__ TwoElements decode(const Raw& raw) { return {{raw.x, raw.z}, {raw.y, raw.w}}; }
};

struct BF16Pairs {
  static constexpr DenseFormat kFormat = DenseFormat::kBF16;
  static constexpr int kMinBlocks = 2;
  using Part = unsigned short;
  using Raw = uint2;
  static __device__ Raw join(const Part (&p)[4]) {
    return make_uint2(p[0] | static_cast<unsigned>(p[1]) << 16, p[2] | static_cast<unsigned>(p[3])
                                                                           << 16);
  }
  static __device__ TwoElements decode(const Raw& raw) {
    return {{__uint_as_float(raw.x << 16), __uint_as_float(raw.y << 16)},
            {__uint_as_float(raw.x & 0xffff0000u), __uint_as_float(raw.y & 0xffff0000u)}};
  }
};

struct Int8Pairs {
  static constexpr DenseFormat kFormat = DenseFormat::kInt8;
  static constexpr int kMinBlocks = 3;
  using Part = signed char;
  using Raw = unsigned;
  static __device__ Raw join(const Part (&p)[4]) {
    return (p[0] & 0xffu) | (p[1] & 0xffu) << 8 | (p[2] & 0xffu) << 16 | (p[3] & 0xffu) << 24;
  }
  static __device__ float part(Raw raw, int k) {
    return static_cast<float>(static_cast<signed char>(raw >> (8 * k)));
  }
  static __device__ TwoElements decode(const Raw& raw) {
    return {{part(raw, 0), part(raw, 2)}, {part(raw, 1), part(raw, 3)}};
  }
};

// ---- the kernel ----

template <class Format, bool kAligned, int kStates>
class DenseBlock {
  using Part = typename Format::Part;
  using Raw = typename Format::Raw;
  static constexpr int kRows = dense_rows(Format::kFormat);
  static constexpr int kSums = kRows * kStates;
  // Loads of D that a lane has in flight for each row; fewer where the sums take the registers.
  static constexpr int kAhead = kSums <= 4 ? 4 : kSums == 8 ? 2 : 1;

  struct Complex {
    float re;
    float im;
  };

 public:
  __device__ explicit DenseBlock(const DenseLaunch& launch)
      : launch_(launch),
        call_(launch.call),
        q_(call_.q),
        lane_(lane_index()),
        warp_(static_cast<int>(threadIdx.x) / kWarp),
        parts_(dynamic_shared()) {}

  __device__ void run() {
    const int64_t groups = launch_.row_groups * launch_.tiles;
    for (int64_t group = blockIdx.x; group < groups; group += gridDim.x) {
      const int64_t tile = group % launch_.tiles;
      row_group_ = group / launch_.tiles;
      first_state_ = tile * kStates;
      const int64_t left = call_.batch - first_state_;
      states_ = static_cast<int>(left < kStates ? left : kStates);
      multiply();
      if (call_.normalise) normalise(tile);
    }
  }

 private:
  // ---- psi and out ----

  // A state past the end reads the first one of the tile, and writes nothing.
  __device__ const float* psi(int state) const {
    return call_.psi + 2 * (first_state_ + (state < states_ ? state : 0)) * call_.psi_stride;
  }

  __device__ float* out(int state) const {
    return call_.out + 2 * (first_state_ + state) * call_.out_stride;
  }

  static __device__ Complex load_psi(const float* state, int64_t column) {
    if constexpr (kAligned) {
      const float2 loaded = __ldg(reinterpret_cast<const float2*>(state + 2 * column));
      return {loaded.x, loaded.y};
    } else {
      return {__ldg(state + 2 * column), __ldg(state + 2 * column + 1)};
    }
  }

  static __device__ void store(float* state, int64_t column, Complex value) {
    if constexpr (kAligned) {
      *reinterpret_cast<float2*>(state + 2 * column) = make_float2(value.re, value.im);
    } else {
      state[2 * column] = value.re;
      state[2 * column + 1] = value.im;
    }
  }

  // ---- D ----

  __device__ int64_t row_of(int r) const {
    return row_group_ * (kDenseWarps * kRows) + warp_ + r * kDenseWarps;
  }

  // D is read once: it should not push psi out of the caches, hence __ldcs.
  static __device__ Raw load_two(const Part* row, int64_t column) {
    if constexpr (kAligned) {
      return __ldcs(reinterpret_cast<const Raw*>(row + 2 * column));
    } else {
      return Format::join({__ldcs(row + 2 * column), __ldcs(row + 2 * column + 1),
                           __ldcs(row + 2 * column + 2), __ldcs(row + 2 * column + 3)});
    }
  }

  static __device__ Raw load_one(const Part* row, int64_t column) {
    return Format::join({__ldcs(row + 2 * column), __ldcs(row + 2 * column + 1), 0, 0});
  }

  // ---- the product ----

  struct Sums {
    float re[kSums];  // (kRows, kStates)
    float im[kSums];
  };

  static __device__ void add_product(float d_re, float d_im, const Complex& x, float& re,
                                     float& im) {
    re = fmaf(d_re, x.re, re);
    re = fmaf(-d_im, x.im, re);
    im = fmaf(d_re, x.im, im);
    im = fmaf(d_im, x.re, im);
  }

  // Adds the products of two columns, or of one. past: beyond the last column, nothing is read.
  template <int kColumns>
  __device__ void add_columns(const Raw (&raw)[kRows], int64_t column, bool past,
                              Sums& sums) const {
    Complex x[kStates][kColumns] = {};
#pragma unroll
    for (int s = 0; s < kStates; ++s) {
#pragma unroll
      for (int k = 0; k < kColumns; ++k) {
        if (!past) x[s][k] = load_psi(psi(s), column + k);
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const TwoElements d = Format::decode(raw[r]);
#pragma unroll
      for (int s = 0; s < kStates; ++s) {
        const int to = r * kStates + s;
#pragma unroll
        for (int k = 0; k < kColumns; ++k) {
          add_product(d.re[k], d.im[k], x[s][k], sums.re[to], sums.im[to]);
        }
      }
    }
  }

  __device__ void add_single(const Part* const (&rows)[kRows], int64_t column, Sums& sums) const {
    Raw raw[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) raw[r] = load_one(rows[r], column);
    add_columns<1>(raw, column, false, sums);
  }

  // The columns of kAhead loads. kChecked: some may be past the end. Without a check the compiler
  // issues all the loads before it uses the first.
  template <bool kChecked>
  __device__ void add_step(const Part* const (&rows)[kRows], int64_t peeled, int64_t two,
                           int64_t twos, Sums& sums) const {
    Raw raw[kAhead][kRows] = {};
#pragma unroll
    for (int ahead = 0; ahead < kAhead; ++ahead) {
      const int64_t at = two + kWarp * ahead;
      if (kChecked && at >= twos) continue;
#pragma unroll
      for (int r = 0; r < kRows; ++r) raw[ahead][r] = load_two(rows[r], peeled + 2 * at);
    }
#pragma unroll
    for (int ahead = 0; ahead < kAhead; ++ahead) {
      const int64_t at = two + kWarp * ahead;
      add_columns<2>(raw[ahead], peeled + 2 * at, kChecked && at >= twos, sums);
    }
  }

  __device__ void add_rows(Sums& sums) const {
    const Part* first = static_cast<const Part*>(call_.D) + 2 * row_of(0) * q_;
    const Part* rows[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      rows[r] = row_of(r) < q_ ? first + 2 * r * kDenseWarps * q_ : first;
    }
    // 1 where the row begins half way into a pair of elements.
    const int64_t peeled =
        kAligned ? static_cast<int64_t>(reinterpret_cast<uintptr_t>(first) % sizeof(Raw) != 0) : 0;
    if (peeled != 0 && lane_ == 0) add_single(rows, 0, sums);
    const int64_t twos = (q_ - peeled) / 2;
    constexpr int kStep = kWarp * kAhead;
    int64_t two = lane_;
    for (; two + kStep - kWarp < twos; two += kStep) add_step<false>(rows, peeled, two, twos, sums);
    if (kAhead > 1 && two < twos) add_step<true>(rows, peeled, two, twos, sums);
    if (lane_ == 0 && peeled + 2 * twos < q_) add_single(rows, q_ - 1, sums);
  }

  // a psi + b * sum, where b = 0 stands for no sum at all.
  __device__ float blend(float x, float sum) const {
    if (call_.b != 0.0f) return fmaf(call_.b, sum, __fmul_rn(call_.a, x));
    return call_.a == 1.0f ? x : __fmul_rn(call_.a, x);
  }

  __device__ void multiply() const {
    Sums sums = {};
    if (call_.b != 0.0f && row_of(0) < q_) add_rows(sums);
    Complex sum = {sum_over_warp(sums.re), sum_over_warp(sums.im)};

    constexpr int kCopies = kLanesPerValue<kSums>;
    const int value = value_of_lane<kSums>(lane_);
    const int state = value % kStates;
    const int64_t row = row_of(value / kStates);
    float square = 0.0f;
    if (lane_ % kCopies == 0 && row < q_ && state < states_) {
      if (call_.scales != nullptr && call_.b != 0.0f) {
        const float scale = __ldg(call_.scales + row);
        sum = {__fmul_rn(scale, sum.re), __fmul_rn(scale, sum.im)};
      }
      const Complex x = load_psi(psi(state), row);
      const Complex y = {blend(x.re, sum.re), blend(x.im, sum.im)};
      store(out(state), row, y);
      square = fmaf(y.re, y.re, __fmul_rn(y.im, y.im));
    }
    if (call_.normalise && lane_ % kCopies == 0) parts_[warp_ * kSums + value] = square;
  }

  // ---- the norm ----

  __device__ float* squares_of(int64_t tile, int64_t row_group) const {
    return launch_.squares + (tile * launch_.row_groups + row_group) * kStates;
  }

  __device__ void normalise(int64_t tile) const {
    __syncthreads();
    const int thread = static_cast<int>(threadIdx.x);
    if (thread < kStates) {
      float square = 0.0f;
#pragma unroll
      for (int i = 0; i < kDenseWarps * kRows; ++i) square += parts_[i * kStates + thread];
      squares_of(tile, row_group_)[thread] = square;
    }
    // Every thread orders what it wrote, out included, before the ticket that announces it.
    __threadfence();
    __syncthreads();
    unsigned* ticket = launch_.tickets + tile;
    float* is_last = parts_ + kDenseWarps * kSums;
    if (thread == 0) {
      const auto groups = static_cast<unsigned>(launch_.row_groups);
      *is_last = atomicAdd(ticket, 1u) == groups - 1 ? 1.0f : 0.0f;
    }
    __syncthreads();
    const bool last = *is_last != 0.0f;
    if (last) {
      __threadfence();
      rescale(tile);
      if (thread == 0) *ticket = 0;
    }
    __syncthreads();  // the shared memory may be used again
  }

  __device__ void rescale(int64_t tile) const {
    const int thread = static_cast<int>(threadIdx.x);
    float squares[kStates] = {};
    for (int64_t group = thread; group < launch_.row_groups; group += kDenseThreads) {
#pragma unroll
      for (int s = 0; s < kStates; ++s) squares[s] += __ldcg(squares_of(tile, group) + s);
    }
    const float of_warp = sum_over_warp(squares);
    constexpr int kCopies = kLanesPerValue<kStates>;
    if (lane_ % kCopies == 0) parts_[warp_ * kStates + value_of_lane<kStates>(lane_)] = of_warp;
    __syncthreads();
    for (int s = 0; s < states_; ++s) {
      float square = 0.0f;
#pragma unroll
      for (int w = 0; w < kDenseWarps; ++w) square += parts_[w * kStates + s];
      if (square == 0.0f) continue;
      const float factor = 1.0f / sqrtf(square);
      float* state = out(s);
      // Other blocks wrote most of this: __ldcg, past the first-level cache.
#pragma unroll 4
      for (int64_t i = thread; i < 2 * q_; i += kDenseThreads) {
        state[i] = __fmul_rn(__ldcg(state + i), factor);
      }
    }
  }

  const DenseLaunch& launch_;
  const DenseCall& call_;
  const int64_t q_;
  const int lane_;
  const int warp_;
  float* parts_;  // shared: (warps, kRows, kStates) squares, then one flag
  int64_t row_group_ = 0;
  int64_t first_state_ = 0;  // of this tile
  int states_ = 0;           // of this tile that exist
};

// Blocks that have to fit a multiprocessor. For one state, what counts is loads in flight: so few
// blocks leave a thread the registers for all its loads, and are still enough to hide latency.
template <class Format, int kStates>
constexpr int kDenseMinBlocks = kStates == 1 ? Format::kMinBlocks : 1;

template <class Format, bool kAligned, int kStates>
__global__ void __launch_bounds__(kDenseThreads, kDenseMinBlocks<Format, kStates>)
    dense_kernel(const __grid_constant__ DenseLaunch launch) {
  DenseBlock<Format, kAligned, kStates>(launch).run();
}

// ---- which instantiation a plan wants ----

using DenseKernel = void (*)(DenseLaunch);

template <class Format, bool kAligned>
DenseKernel dense_kernel_for(int states) {
  switch (states) {
    case 1:
      return dense_kernel<Format, kAligned, 1>;
    case 2:
      return dense_kernel<Format, kAligned, 2>;
    case 4:
      return dense_kernel<Format, kAligned, 4>;
    default:
      return dense_kernel<Format, kAligned, 8>;
  }
}

template <class Format>
DenseKernel dense_kernel_for(const DensePlan& plan) {
  return plan.aligned ? dense_kernel_for<Format, true>(plan.states)
                      : dense_kernel_for<Format, false>(plan.states);
}

inline DenseKernel dense_kernel_for(const DensePlan& plan, DenseFormat format) {
  if (format == DenseFormat::kComplex64) return dense_kernel_for<Complex64>(plan);
  if (format == DenseFormat::kBF16) return dense_kernel_for<BF16Pairs>(plan);
  return dense_kernel_for<Int8Pairs>(plan);
}

}  // namespace cogit::cuda
