#pragma once

#include <cstdint>

#include "backend/cuda/device/threads.cuh"
#include "shared_memory.h"

namespace medusa::cuda {

inline uint32_t shared_address(const void* at, Where where = Where::current()) {
  return emulation::shared_address(at, where);
}
inline void init_barrier(uint64_t* barrier, int arrivals, Where where = Where::current()) {
  emulation::init_phase(barrier, arrivals, where);
}
inline void show_barriers_to_copies() {}
inline void arrive_expecting(uint64_t* barrier, uint32_t bytes, Where where = Where::current()) {
  emulation::arrive_at_phase(barrier, bytes, where);
}
inline void wait_barrier(uint64_t* barrier, uint32_t parity, Where where = Where::current()) {
  emulation::wait_for_phase(barrier, parity, false, where);
}
inline void copy_bulk_once(void* to_shared, const void* from, uint32_t bytes, uint64_t* barrier,
                           Where where = Where::current()) {
  emulation::queue_bulk_copy(to_shared, from, bytes, barrier, where);
}

}  // namespace medusa::cuda
