#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "backend/cuda/runtime.h"

namespace medusa::cuda {

/// For launch(): hands a kernel to the stream.
template <class... Parameters>
void start(const Stream& stream, const LaunchShape& shape, void (*kernel)(Parameters...),
           const Parameters&... arguments) {
  constexpr size_t kWithoutAsking = 48 << 10;
  const auto* address = reinterpret_cast<const void*>(kernel);
  if (shape.shared_bytes > kWithoutAsking) allow_shared_memory(address, shape.shared_bytes);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(shape.x, shape.y, shape.z);
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream.handle();
  cudaLaunchAttribute attributes[2]{};
  config.attrs = attributes;
  if (shape.early) {
    cudaLaunchAttribute& early = attributes[config.numAttrs++];
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
  }
  if (shape.cluster_x * shape.cluster_y > 1) {
    cudaLaunchAttribute& cluster = attributes[config.numAttrs++];
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {shape.cluster_x, shape.cluster_y, 1};
  }
  check_launch(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
}

}  // namespace medusa::cuda
