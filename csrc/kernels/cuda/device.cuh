// What the kernels share: element types, groups of four columns, and sums over a warp.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>

namespace cogit::cuda {

constexpr int kWarp = 32;
constexpr unsigned kWholeWarp = 0xffffffffu;

__device__ inline int lane_index() { return static_cast<int>(threadIdx.x) % kWarp; }

// Aligned to 16 bytes. Static __shared__ variables are avoided: the CPU emulation has none.
__device__ inline float* dynamic_shared() {
#ifdef COGIT_CUDA_EMULATION
  return emulation::dynamic_shared();
#else
  extern __shared__ float4 memory[];
  return reinterpret_cast<float*>(memory);
#endif
}

// ---- element types of the residual stream ----

struct F32 {
  using Bits = float;
  static __device__ float widen(Bits bits) { return bits; }
  static __device__ Bits round(float value) { return value; }
};

struct BF16 {
  using Bits = uint16_t;
  static __device__ float widen(Bits bits) {
    return __uint_as_float(static_cast<uint32_t>(bits) << 16);
  }
  static __device__ Bits round(float value) {
    return __bfloat16_as_ushort(__float2bfloat16_rn(value));
  }
};

struct F16 {
  using Bits = uint16_t;
  static __device__ float widen(Bits bits) { return __half2float(__ushort_as_half(bits)); }
  static __device__ Bits round(float value) { return __half_as_ushort(__float2half_rn(value)); }
};

// ---- four adjacent columns ----

constexpr int kQuad = 4;

template <class T>
struct alignas(kQuad * sizeof(T)) Quad {
  T at[kQuad];
};

// Columns j .. j + 3 of a row of d; those past the end are zero. kAligned: the row allows one load
// for all four, and d is a multiple of four.
template <bool kAligned, class T>
__device__ inline Quad<T> load_quad(const T* row, int64_t j, int64_t d) {
  if constexpr (kAligned) {
    return *reinterpret_cast<const Quad<T>*>(row + j);
  } else {
    Quad<T> quad{};
#pragma unroll
    for (int k = 0; k < kQuad; ++k) {
      if (j + k < d) quad.at[k] = row[j + k];
    }
    return quad;
  }
}

// The same for memory that nothing writes while the kernel runs.
template <bool kAligned>
__device__ inline Quad<float> load_weights(const float* row, int64_t j, int64_t d) {
  if constexpr (kAligned) {
    const float4 loaded = __ldg(reinterpret_cast<const float4*>(row + j));
    return {{loaded.x, loaded.y, loaded.z, loaded.w}};
  } else {
    Quad<float> quad{};
#pragma unroll
    for (int k = 0; k < kQuad; ++k) {
      if (j + k < d) quad.at[k] = __ldg(row + j + k);
    }
    return quad;
  }
}

template <bool kAligned, class T>
__device__ inline void store_quad(T* row, int64_t j, int64_t d, const Quad<T>& quad) {
  if constexpr (kAligned) {
    *reinterpret_cast<Quad<T>*>(row + j) = quad;
  } else {
#pragma unroll
    for (int k = 0; k < kQuad; ++k) {
      if (j + k < d) row[j + k] = quad.at[k];
    }
  }
}

template <class Io>
__device__ inline Quad<float> widen(const Quad<typename Io::Bits>& bits) {
  Quad<float> wide;
#pragma unroll
  for (int k = 0; k < kQuad; ++k) wide.at[k] = Io::widen(bits.at[k]);
  return wide;
}

template <class Io>
__device__ inline Quad<typename Io::Bits> round(const Quad<float>& wide) {
  Quad<typename Io::Bits> bits;
#pragma unroll
  for (int k = 0; k < kQuad; ++k) bits.at[k] = Io::round(wide.at[k]);
  return bits;
}

// ---- sums over a warp ----

// Sums each value over the lanes; lane l returns the sum of value[value_of_lane<kCount>(l)]. Each
// step halves the values instead of repeating one butterfly for every value; the order of the
// additions is that of the butterfly, whatever kCount is.
template <int kCount, int kOffset = kWarp / 2>
__device__ inline float sum_over_warp(const float (&value)[kCount]) {
  static_assert(kCount <= 2 * kOffset || kCount == 1, "at most one value a lane");
  if constexpr (kCount == 1) {
    float sum = value[0];
#pragma unroll
    for (int offset = kOffset; offset > 0; offset /= 2) {
      sum += __shfl_xor_sync(kWholeWarp, sum, offset);
    }
    return sum;
  } else {
    const bool upper = (lane_index() & kOffset) != 0;
    float half[kCount / 2];
#pragma unroll
    for (int k = 0; k < kCount / 2; ++k) {
      const float kept = upper ? value[k + kCount / 2] : value[k];
      const float given = upper ? value[k] : value[k + kCount / 2];
      half[k] = kept + __shfl_xor_sync(kWholeWarp, given, kOffset);
    }
    return sum_over_warp<kCount / 2, kOffset / 2>(half);
  }
}

template <int kCount>
constexpr int kLanesPerValue = kWarp / kCount;

template <int kCount>
__device__ inline int value_of_lane(int lane) {
  return lane / kLanesPerValue<kCount>;
}

}  // namespace cogit::cuda
