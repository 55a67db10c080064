#pragma once

#include <cuda_device_runtime_api.h>

#include <cstdint>

// Loops of a graph, and memory that a kernel and the host share while the kernel runs: pinned, and
// one writes what the other reads.
namespace medusa::cuda {

// Whether the loop's body runs once more; by one thread of its last kernel.
__device__ __forceinline__ void set_loop(unsigned long long loop, bool again) {
  cudaGraphSetConditional(loop, again ? 1u : 0u);
}
// What the host may write meanwhile.
__device__ __forceinline__ uint32_t load_from_host(const uint32_t* from) {
  return *static_cast<const volatile uint32_t*>(from);
}
// The host that sees `value` sees all that this thread, and its block before it met, wrote earlier.
__device__ __forceinline__ void show_to_host(uint32_t* to, uint32_t value) {
  __threadfence_system();
  *static_cast<volatile uint32_t*>(to) = value;
}

}  // namespace medusa::cuda
