// The affine kernel; affine_plan.h says how rows and columns are shared out.
//
// For a tile of rows:
//   1. project: the sums h A^T of every slice, a warp for four rows of A;
//   2. gather:  coefficients u = (a0 + the slices' sums) * s;
//   3. update:  y = h + s c + u B, and the squared norms of h and y;
//   4. finish:  out = y * factor, if restore asks for it.
// Every part of h is read in step 1 by the block that owns its slice, and again by the one thread
// that then writes it: this is what makes working in place safe.
//
// fmaf, __fmul_rn and __fadd_rn leave the compiler no choice of where to fuse, so all
// instantiations give the same bits. The change is summed first and added to h once: h is often
// much larger, and each addition to it would cost a rounding of its size.
#pragma once

#include "kernels/cuda/affine_plan.h"
#include "kernels/cuda/affine_rows.cuh"
#include "kernels/cuda/cluster.cuh"
#include "kernels/cuda/device.cuh"

namespace cogit::cuda {

constexpr int kTeamWarps = kTeam / kWarp;
static_assert(kSlices * kTeamWarps == kWarp, "one lane for each part of a squared norm");

template <class Io, bool kAligned, int kRows, bool kCluster>
class AffineBlock {
  // Rows of A in a unit of work, and how many loads of each a lane has in flight.
  static constexpr int kDown = 4;
  static constexpr int kAhead = !kAligned || kRows >= 4 ? 1 : 4 / kRows;
  static constexpr int kSums = kDown * kRows;
  static constexpr int kNorms = 2 * kRows;
  // Rows of B loaded before the first barrier, with the rest that the update needs: with few rows
  // in flight, latency is what counts, and a barrier of the cluster empties the first-level cache.
  static constexpr int kEarly = kAligned && kCluster && kRows <= 2 ? 16 : 0;

  struct Early {
    Quad<float> h[kRows];
    Quad<float> c;
    Quad<float> b[kEarly > 0 ? kEarly : 1];
  };

 public:
  __device__ explicit AffineBlock(const AffineLaunch& launch)
      : launch_(launch),
        call_(launch.call),
        d_(call_.d_model),
        rank_(static_cast<int>(call_.rank)),
        quads_(static_cast<int>((d_ + kQuad - 1) / kQuad)),
        slice_quads_((quads_ + kSlices - 1) / kSlices),
        lane_(lane_index()),
        warp_(static_cast<int>(threadIdx.x) / kWarp),
        first_slice_(kCluster ? cluster_rank() : 0),
        rows_(launch.call) {
    norms_ = dynamic_shared();
    float* after_norms = norms_ + kNorms * kWarp;
    const bool in_shared = kCluster || launch.partial_sums == nullptr;
    const int64_t sums = int64_t{kSlices} * kRows * rank_;
    sums_ = in_shared ? after_norms : launch.partial_sums + blockIdx.x * sums;
    staged_ = reinterpret_cast<Quad<float>*>(in_shared ? after_norms + sums : after_norms);
  }

  __device__ void run() {
    const int64_t parts = kCluster ? kSlices : 1;
    const int64_t step = gridDim.x / parts;
    if constexpr (kCluster) cluster_arrive_started();
    bool peers_started = false;
    bool sums_in_use = false;
    for (int64_t tile = blockIdx.x / parts; tile < launch_.tiles; tile += step) {
      const bool any = rows_.take(tile);
      // A decoded row does not wait for its strength before it starts loading.
      if (kEarly == 0 && !any) {
        copy_rows();
        continue;
      }
      const Early early = load_early();
      if (sums_in_use) meet();
      sums_in_use = true;
      project(peers_started);
      meet();
      gather();
      __syncthreads();
      update(early);
      if (call_.restore) {
        meet();
        finish();
      }
    }
    await_peers(peers_started);
  }

 private:
  // ---- the slices of this block ----

  static constexpr int kBlockSlices = kCluster ? 1 : kSlices;

  __device__ int slice_begin(int slice) const { return min(slice * slice_quads_, quads_); }
  __device__ int slice_end(int slice) const { return slice_begin(slice + 1); }

  // Calls visit(quad) for the columns of this thread, and done(slice) after each slice.
  template <class Visit, class Done>
  __device__ void for_each_quad(Visit visit, Done done) const {
    const int teams = static_cast<int>(blockDim.x) / kTeam;
    const int team = static_cast<int>(threadIdx.x) / kTeam;
    for (int s = team; s < kBlockSlices; s += teams) {
      const int slice = first_slice_ + s;
      const int end = slice_end(slice);
      for (int quad = first_quad(slice); quad < end; quad += kTeam) visit(quad);
      done(slice);
    }
  }

  __device__ int first_quad(int slice) const {
    return slice_begin(slice) + static_cast<int>(threadIdx.x) % kTeam;
  }

  // All threads that work on this tile; what they put is then visible to each other.
  __device__ void meet() const {
    if constexpr (kCluster) {
      cluster_arrive();
      cluster_wait();
    } else {
      __syncthreads();
    }
  }

  // Loads come first and this as late as it can: other blocks of a cluster may start later.
  __device__ void await_peers(bool& started) const {
    if constexpr (kCluster) {
      if (!started) cluster_wait();
    }
    started = true;
  }

  // Puts a value where all threads of this tile find it; lane `copy` of `copies` that hold it.
  __device__ void put(float* slot, float value, int copy, int copies) const {
    if constexpr (kCluster) {
      for (int peer = copy; peer < kSlices; peer += copies) cluster_put(slot, peer, value);
    } else {
      if (copy == 0) *slot = value;
    }
  }

  // ---- the steps ----

  __device__ Early load_early() const {
    Early early{};
    if constexpr (kEarly > 0) {
      const int quad = first_quad(first_slice_);
      if (quad < slice_end(first_slice_)) {
        early.c = load_weights<kAligned>(call_.c, column(quad), d_);
#pragma unroll
        for (int row = 0; row < kRows; ++row) early.h[row] = rows_.load(row, quad);
#pragma unroll
        for (int i = 0; i < kEarly; ++i) {
          if (i < rank_) early.b[i] = load_weights<kAligned>(call_.B + i * d_, column(quad), d_);
        }
      }
    }
    return early;
  }

  __device__ void project(bool& peers_started) const {
    const int tiles = (rank_ + kDown - 1) / kDown;
    const int warps = static_cast<int>(blockDim.x) / kWarp;
    for (int unit = warp_; unit < kBlockSlices * tiles; unit += warps) {
      const int slice = kCluster ? first_slice_ : unit / tiles;
      const int first = kDown * (kCluster ? unit : unit % tiles);
      const int value = value_of_lane<kSums>(lane_);
      const int i = first + value / kRows;
      const float start = slice == 0 && i < rank_ ? __ldg(call_.a0 + i) : 0.0f;
      float sum[kSums] = {};
      project_unit(slice, first, sum);
      const float total = start + sum_over_warp(sum);
      await_peers(peers_started);
      if (i < rank_) {
        constexpr int kCopies = kLanesPerValue<kSums>;
        float* slot = sums_ + (int64_t{slice} * rank_ + first) * kRows + value;
        put(slot, total, lane_ % kCopies, kCopies);
      }
    }
    // A warp without work has to wait for its peers all the same: barriers count every thread.
    await_peers(peers_started);
  }

  // Adds the products of a slice of h with rows first .. first + kDown - 1 of A.
  __device__ void project_unit(int slice, int first, float (&sum)[kSums]) const {
    const float* down[kDown];
#pragma unroll
    for (int i = 0; i < kDown; ++i) down[i] = call_.A + min(first + i, rank_ - 1) * d_;
    const int end = slice_end(slice);
    for (int begin = slice_begin(slice) + lane_; begin < end; begin += kWarp * kAhead) {
      Quad<float> a[kAhead][kDown] = {};
#pragma unroll
      for (int ahead = 0; ahead < kAhead; ++ahead) {
        const int quad = begin + kWarp * ahead;
        if (quad >= end) continue;
#pragma unroll
        for (int i = 0; i < kDown; ++i) {
          a[ahead][i] = load_weights<kAligned>(down[i], column(quad), d_);
        }
      }
#pragma unroll
      for (int ahead = 0; ahead < kAhead; ++ahead) {
        const int quad = begin + kWarp * ahead;
#pragma unroll
        for (int row = 0; row < kRows; ++row) {
          Quad<float> x{};
          if (quad < end) x = rows_.load(row, quad);
#pragma unroll
          for (int i = 0; i < kDown; ++i) {
            float& to = sum[i * kRows + row];
#pragma unroll
            for (int k = 0; k < kQuad; ++k) to = fmaf(a[ahead][i].at[k], x.at[k], to);
          }
        }
      }
    }
  }

  // Leaves the coefficients in the place of the first slice's sums.
  __device__ void gather() const {
    const int64_t slots = int64_t{kRows} * rank_;
    for (int64_t slot = threadIdx.x; slot < slots; slot += blockDim.x) {
      float sum = sums_[slot];
#pragma unroll
      for (int slice = 1; slice < kSlices; ++slice) sum += sums_[slice * slots + slot];
      sums_[slot] = sum * rows_.strength_of(static_cast<int>(slot % kRows));
    }
  }

  // The change of every row at four columns. kFromEarly: those that `early` holds.
  template <bool kFromEarly>
  __device__ void change(int quad, const Early& early, Quad<float> (&y)[kRows]) const {
    const int64_t j = column(quad);
    const Quad<float> c = kFromEarly ? early.c : load_weights<kAligned>(call_.c, j, d_);
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
#pragma unroll
      for (int k = 0; k < kQuad; ++k) y[row].at[k] = __fmul_rn(rows_.strength[row], c.at[k]);
    }
    int i = 0;
    if constexpr (kFromEarly) {
      // Four at a time: a branch for each would wait for each coefficient in turn.
#pragma unroll
      for (int first = 0; first < kEarly; first += 4) {
        const bool whole = first + 4 <= rank_;
#pragma unroll
        for (int e = first; whole && e < first + 4; ++e) add_up(e, early.b[e], y);
#pragma unroll
        for (int e = first; !whole && e < first + 3; ++e) {
          if (e < rank_) add_up(e, early.b[e], y);
        }
      }
      i = kEarly;
    }
    const float* up = call_.B + i * d_;
#pragma unroll 4
    for (; i < rank_; ++i, up += d_) add_up(i, load_weights<kAligned>(up, j, d_), y);
  }

  __device__ void add_up(int i, const Quad<float>& b, Quad<float> (&y)[kRows]) const {
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      const float u = sums_[int64_t{i} * kRows + row];
#pragma unroll
      for (int k = 0; k < kQuad; ++k) y[row].at[k] = fmaf(u, b.at[k], y[row].at[k]);
    }
  }

  __device__ void update(const Early& early) const {
    float norms[kNorms] = {};  // of h, then of y
    const auto visit = [&](int quad) {
      Quad<float> y[kRows];
      const bool is_early = kEarly > 0 && quad == first_quad(first_slice_);
      if (is_early) {
        change<(kEarly > 0)>(quad, early, y);
      } else {
        change<false>(quad, early, y);
      }
#pragma unroll
      for (int row = 0; row < kRows; ++row) {
        const Quad<float> x = is_early ? early.h[row] : rows_.load(row, quad);
#pragma unroll
        for (int k = 0; k < kQuad; ++k) {
          y[row].at[k] = __fadd_rn(x.at[k], y[row].at[k]);
          if (!call_.restore) continue;
          norms[row] = fmaf(x.at[k], x.at[k], norms[row]);
          norms[kRows + row] = fmaf(y[row].at[k], y[row].at[k], norms[kRows + row]);
        }
        if (!call_.restore) {
          rows_.store(row, quad, y[row]);
        } else if (launch_.staged) {
          staged_[staged_index(row, quad)] = y[row];
        }
      }
    };
    const auto done = [&](int slice) {
      if (!call_.restore) return;
      const float norm = sum_over_warp(norms);
      const int part = slice * kTeamWarps + warp_ % kTeamWarps;
      constexpr int kCopies = kLanesPerValue<kNorms>;
      put(norms_ + value_of_lane<kNorms>(lane_) * kWarp + part, norm, lane_ % kCopies, kCopies);
#pragma unroll
      for (int k = 0; k < kNorms; ++k) norms[k] = 0.0f;
    };
    for_each_quad(visit, done);
  }

  __device__ int staged_index(int row, int quad) const {
    const int owned = kCluster ? slice_quads_ : quads_;
    return row * owned + quad - slice_begin(first_slice_);
  }

  __device__ void finish() const {
    float norms[kNorms];
#pragma unroll
    for (int k = 0; k < kNorms; ++k) norms[k] = norms_[k * kWarp + lane_];
    const float norm = sum_over_warp(norms);
    float factor[kRows];
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      const float before = __shfl_sync(kWholeWarp, norm, row * kLanesPerValue<kNorms>);
      const float after = __shfl_sync(kWholeWarp, norm, (kRows + row) * kLanesPerValue<kNorms>);
      // An unchanged row has two equal sums, added up in the same order: exactly 1.
      factor[row] = after != 0.0f ? sqrtf(before / after) : 1.0f;
    }
    const auto visit = [&](int quad) {
      Quad<float> y[kRows];
      if (!launch_.staged) change<false>(quad, {}, y);
#pragma unroll
      for (int row = 0; row < kRows; ++row) {
        if (launch_.staged) {
          y[row] = staged_[staged_index(row, quad)];
        } else {
          const Quad<float> x = rows_.load(row, quad);
#pragma unroll
          for (int k = 0; k < kQuad; ++k) y[row].at[k] = __fadd_rn(x.at[k], y[row].at[k]);
        }
#pragma unroll
        for (int k = 0; k < kQuad; ++k) y[row].at[k] = __fmul_rn(y[row].at[k], factor[row]);
        rows_.store(row, quad, y[row]);
      }
    };
    for_each_quad(visit, [](int) {});
  }

  __device__ void copy_rows() const {
    const auto visit = [&](int quad) {
#pragma unroll
      for (int row = 0; row < kRows; ++row) rows_.store(row, quad, {});
    };
    for_each_quad(visit, [](int) {});
  }

  const AffineLaunch& launch_;
  const AffineCall& call_;
  const int64_t d_;
  const int rank_;
  const int quads_;
  const int slice_quads_;
  const int lane_;
  const int warp_;
  const int first_slice_;
  float* norms_;         // (2, kRows, 32): parts of the squared norms of h and of y
  float* sums_;          // (kSlices, rank, kRows); the coefficients after gather()
  Quad<float>* staged_;  // (kRows, columns of this block)
  AffineRows<Io, kAligned, kRows> rows_;
};

// Blocks of a cluster that have to fit a multiprocessor; their registers follow from it.
template <int kRows>
constexpr int kMinBlocks = kRows == 8   ? 3
                           : kRows == 4 ? 4
                                        : 1;

template <class Io, bool kAligned, int kRows, bool kCluster>
__global__ void __launch_bounds__(kCluster ? kTeam : kBlockTeams * kTeam,
                                  kCluster ? kMinBlocks<kRows> : 1)
    affine_kernel(const __grid_constant__ AffineLaunch launch) {
  AffineBlock<Io, kAligned, kRows, kCluster>(launch).run();
}

}  // namespace cogit::cuda
