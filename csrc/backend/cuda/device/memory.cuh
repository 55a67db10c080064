#pragma once

#include <cstdint>

// Global memory. 16-byte accesses need 16-byte aligned addresses.
namespace medusa::cuda {

__device__ __forceinline__ uint4 load_16(const void* from) {
  return *static_cast<const uint4*>(from);
}
// Of what is read once in a step, weights: passes the caches by.
__device__ __forceinline__ uint4 load_once_16(const void* from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}
__device__ __forceinline__ uint64_t load_once_8(const uint64_t* from) {
  uint64_t v;
  asm volatile("ld.global.nc.L1::no_allocate.u64 %0, [%1];" : "=l"(v) : "l"(from));
  return v;
}
// Of what other blocks of the same launch have written: never from the multiprocessor's own cache.
__device__ __forceinline__ float load_written(const float* from) { return __ldcg(from); }
__device__ __forceinline__ uint64_t load_written(const uint64_t* from) {
  return __ldcg(reinterpret_cast<const unsigned long long*>(from));
}
__device__ __forceinline__ void store_16(void* to, uint4 value) {
  *static_cast<uint4*>(to) = value;
}

}  // namespace medusa::cuda
