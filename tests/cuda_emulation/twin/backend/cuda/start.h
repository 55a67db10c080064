#pragma once

#include "backend/cuda/device/threads.cuh"
#include "backend/cuda/runtime.h"
#include "emulated_stream.h"

namespace medusa::cuda {

template <class... Parameters>
void start(const Stream& stream, const LaunchShape& shape, void (*kernel)(Parameters...),
           const Parameters&... arguments) {
  emulation::enqueue(
      stream.handle(),
      [=] {
        emulation::run_kernel({shape.x, shape.y, shape.z}, shape.threads, shape.shared_bytes,
                              [&] { kernel(arguments...); }, shape.early,
                              {shape.cluster_x, shape.cluster_y, 1});
      },
      shape.early);
}

}  // namespace medusa::cuda
