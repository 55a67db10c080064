#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "backend/cuda/runtime.h"

namespace medusa::cuda {

/// Queues a kernel, the one way to start one. `threads`: of a block, whole warps.
template <class... Parameters, class... Arguments>
void launch(const Stream& stream, dim3 grid, int threads, size_t shared_bytes,
            void (*kernel)(Parameters...), const Arguments&... arguments) {
  constexpr size_t kWithoutAsking = 48 << 10;
  const auto* address = reinterpret_cast<const void*>(kernel);
  if (shared_bytes > kWithoutAsking) allow_shared_memory(address, shared_bytes);
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream.handle();
  check_launch(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
}

}  // namespace medusa::cuda
