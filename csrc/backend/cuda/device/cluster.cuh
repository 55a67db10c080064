#pragma once

#include <cstdint>

#include "backend/cuda/device/barrier.cuh"

// Compute capability 9.0 on: blocks of a cluster (launch_clusters) run at the same time and reach
// each other's shared memory. All have the same arrays, so a place in a block's own names that
// place in every block. Ranks count along x first. Another block's memory may be used from the
// first barrier of the cluster on, when all blocks run, and before the last one, after which they
// return.
namespace medusa::cuda {

__device__ __forceinline__ int cluster_rank() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
}

// Two halves of a barrier of all threads of the cluster: what was done before the one is seen after
// the other.
__device__ __forceinline__ void arrive_at_cluster() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ __forceinline__ void wait_for_cluster() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
__device__ __forceinline__ void sync_cluster() {
  arrive_at_cluster();
  wait_for_cluster();
}

// An address for instructions that reach other blocks.
__device__ __forceinline__ uint32_t peer_address(const void* at, int rank) {
  uint32_t address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(at)), "r"(rank));
  return address;
}
__device__ __forceinline__ float load_peer(const float* at, int rank) {
  float value;
  asm volatile("ld.shared::cluster.f32 %0, [%1];"
               : "=f"(value)
               : "r"(peer_address(at, rank))
               : "memory");
  return value;
}

// One arrival at a barrier of another block, or of one's own; who waits for it does so by the
// second. Tells what may be written again, after a barrier of the block that has read it: nothing
// that was written is seen for it.
__device__ __forceinline__ void arrive_at_peer(uint64_t* barrier, int rank) {
  asm volatile("mbarrier.arrive.relaxed.cluster.shared::cluster.b64 _, [%0];" ::"r"(
                   peer_address(barrier, rank))
               : "memory");
}
__device__ __forceinline__ void wait_for_peers(uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.relaxed.cluster.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

// As copy_bulk_once(), of what is read again: to every block whose rank is a bit of the mask, each
// of which must tell its own barrier of the bytes.
__device__ __forceinline__ void copy_bulk_to_peers(uint32_t mask, void* to_shared, const void* from,
                                                   uint32_t bytes, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
      "[%1], %2, [%3], %4;" ::"r"(shared_address(to_shared)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier)), "h"(static_cast<uint16_t>(mask))
      : "memory");
}

}  // namespace medusa::cuda
