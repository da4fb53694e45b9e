// Clusters of the emulation; see kernels/cuda/cluster.cuh.
#pragma once

#include "cuda_runtime.h"

namespace cogit::cuda {

inline int cluster_rank() { return emulation::current().block->rank; }

inline void cluster_arrive() {
  emulation::Fiber& fiber = emulation::current();
  if (fiber.arrived_at_cluster) emulation::fail("arrived twice at a cluster barrier");
  fiber.arrived_at_cluster = true;
  fiber.cluster_phase = fiber.cluster->barrier.phase;
  emulation::arrive(fiber.cluster->barrier);
}

inline void cluster_arrive_started() { cluster_arrive(); }

inline void cluster_wait() {
  emulation::Fiber& fiber = emulation::current();
  if (!fiber.arrived_at_cluster) emulation::fail("waited at a cluster barrier before arriving");
  emulation::wait(fiber.cluster->barrier, fiber.cluster_phase);
  fiber.arrived_at_cluster = false;
}

inline void cluster_put(float* slot, int rank, float value) {
  emulation::Fiber& fiber = emulation::current();
  // On the device this thread has to have waited, else the other block may not run yet.
  if (fiber.cluster->barrier.phase == 0 || fiber.arrived_at_cluster) {
    emulation::fail("wrote to another block before waiting for it");
  }
  emulation::Block& peer = *fiber.cluster->blocks[static_cast<size_t>(rank)];
  const auto offset = slot - emulation::dynamic_shared();
  reinterpret_cast<float*>(peer.shared.data())[offset] = value;
}

}  // namespace cogit::cuda
