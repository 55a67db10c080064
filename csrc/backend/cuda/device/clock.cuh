#pragma once

#include <cstdint>

namespace medusa::cuda {

// The device's clock; every multiprocessor sees the same.
__device__ __forceinline__ int64_t nanoseconds() {
  int64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

}  // namespace medusa::cuda
