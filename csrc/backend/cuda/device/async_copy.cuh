#pragma once

#include <cstdint>

// Copies of 16 bytes from global to shared memory that land later: at the issuing thread's wait,
// and for others at a barrier after it.
namespace medusa::cuda {

// Zeros where not `valid`; `from` is then not read.
__device__ __forceinline__ void copy_async_16(void* to_shared, const void* from, bool valid) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(to_shared));
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
               : "memory");
}
// Closes this thread's group of copies.
__device__ __forceinline__ void copy_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Until at most the latest N groups are under way.
template <int N>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

}  // namespace medusa::cuda
