#pragma once

#include <cstdint>

#include "backend/cuda/device/barrier.cuh"

namespace medusa::cuda {

inline int cluster_rank() { return emulation::cluster_rank(); }
inline void arrive_at_cluster(Where where = Where::current()) {
  emulation::arrive_at_cluster(where);
}
inline void wait_for_cluster(Where where = Where::current()) { emulation::wait_for_cluster(where); }
inline void sync_cluster(Where where = Where::current()) {
  emulation::arrive_at_cluster(where);
  emulation::wait_for_cluster(where);
}

inline uintptr_t peer_address(const void* at, int rank, Where where = Where::current()) {
  return reinterpret_cast<uintptr_t>(emulation::peer_memory(at, 1, rank, where));
}
inline float load_peer(const float* at, int rank, Where where = Where::current()) {
  return *static_cast<const float*>(emulation::peer_memory(at, sizeof *at, rank, where));
}
inline void arrive_at_peer(uint64_t* barrier, int rank, Where where = Where::current()) {
  emulation::arrive_at_peers_phase(barrier, rank, where);
}
inline void wait_for_peers(uint64_t* barrier, uint32_t parity, Where where = Where::current()) {
  emulation::wait_for_phase(barrier, parity, true, where);
}
inline void copy_bulk_to_peers(uint32_t mask, void* to_shared, const void* from, uint32_t bytes,
                               uint64_t* barrier, Where where = Where::current()) {
  emulation::check_followed(where);
  emulation::queue_bulk_copy_to(mask, to_shared, from, bytes, barrier, where);
}

}  // namespace medusa::cuda
