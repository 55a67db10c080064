#pragma once

#include <cstddef>
#include <tuple>

#include "backend/cuda/launch_list.h"
#include "backend/cuda/runtime.h"
#include "backend/cuda/start.h"

namespace medusa::cuda {

/// A kernel with all that starts it.
template <class... Parameters>
struct KernelCall {
  LaunchShape shape;
  void (*kernel)(Parameters...);
  std::tuple<Parameters...> arguments;

  void operator()(const Stream& stream) const {
    std::apply([&](const Parameters&... values) { start(stream, shape, kernel, values...); },
               arguments);
  }
  bool operator==(const KernelCall&) const = default;
};

/// Queues a kernel, the one way to start one; where the stream is recorded, writes it down instead.
/// `threads`: of a block, whole warps.
template <class... Parameters, class... Arguments>
void launch(const Stream& stream, dim3 grid, int threads, size_t shared_bytes,
            void (*kernel)(Parameters...), const Arguments&... arguments) {
  const KernelCall<Parameters...> call{{grid.x, grid.y, grid.z, threads, shared_bytes},
                                       kernel,
                                       {static_cast<Parameters>(arguments)...}};
  if (LaunchList* record = stream.record()) {
    record->add(call);
  } else {
    call(stream);
  }
}

}  // namespace medusa::cuda
