// Blocks of one cluster that write into each other's shared memory; devices of capability 9.0 on.
//
// PTX and not cooperative_groups: that one asks at every barrier whether there is a cluster at all,
// and cannot arrive without a fence.
#pragma once

#include <cuda_runtime.h>

#ifdef COGIT_CUDA_EMULATION
#include "cluster_emulation.h"
#else

namespace cogit::cuda {

#if __CUDA_ARCH__ >= 900

__device__ inline int cluster_rank() {
  int rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// Tells the others that this thread runs, and nothing about memory. Each arrival wants its wait.
// The barriers want whole warps, hence the __syncwarp.
__device__ inline void cluster_arrive_started() {
  __syncwarp();
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}

// What a thread wrote before arriving, any thread of the cluster reads after waiting.
__device__ inline void cluster_arrive() {
  __syncwarp();
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}

__device__ inline void cluster_wait() {
  __syncwarp();
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// `slot` is shared memory of this block; the same place in block `rank` gets the value. All threads
// of that block must have started.
__device__ inline void cluster_put(float* slot, int rank, float value) {
  const auto here = static_cast<unsigned>(__cvta_generic_to_shared(slot));
  unsigned there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(rank));
  asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(there), "f"(value) : "memory");
}

#else  // compiled for older devices too, never launched there

__device__ inline int cluster_rank() { return 0; }
__device__ inline void cluster_arrive_started() { __trap(); }
__device__ inline void cluster_arrive() { __trap(); }
__device__ inline void cluster_wait() { __trap(); }
__device__ inline void cluster_put(float*, int, float) { __trap(); }

#endif

}  // namespace cogit::cuda

#endif
