#pragma once

#include <cstdint>

#include "backend/cuda/device/threads.cuh"

struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

namespace medusa::cuda {

namespace twin {
inline void check_alignment(const void* at, Where where) {
  if (reinterpret_cast<uintptr_t>(at) % 16 != 0) {
    emulation::fail("a 16-byte access to an address that is not a multiple of 16", where);
  }
}
}  // namespace twin

inline uint4 load_16(const void* from, Where where = Where::current()) {
  twin::check_alignment(from, where);
  uint4 value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
inline uint4 load_once_16(const void* from, Where where = Where::current()) {
  return load_16(from, where);
}
inline uint64_t load_once_8(const uint64_t* from) { return *from; }
inline float load_written(const float* from, Where where = Where::current()) {
  emulation::check_followed(where);
  return *from;
}
inline uint64_t load_written(const uint64_t* from, Where where = Where::current()) {
  emulation::check_followed(where);
  return *from;
}
inline void store_16(void* to, uint4 value, Where where = Where::current()) {
  twin::check_alignment(to, where);
  std::memcpy(to, &value, sizeof value);
}

}  // namespace medusa::cuda
