#pragma once

#include <cstddef>

#include "backend/cuda/device/threads.cuh"
#include "backend/cuda/runtime.h"
#include "emulated_stream.h"

namespace medusa::cuda {

template <class... Parameters, class... Arguments>
void launch(const Stream& stream, dim3 grid, int threads, size_t shared_bytes,
            void (*kernel)(Parameters...), const Arguments&... arguments) {
  emulation::enqueue(stream.handle(), [=] {
    emulation::run_kernel({grid.x, grid.y, grid.z}, threads, shared_bytes,
                          [&] { kernel(static_cast<Parameters>(arguments)...); });
  });
}

}  // namespace medusa::cuda
