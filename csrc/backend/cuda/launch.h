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
  static constexpr bool kKernel = true;

  LaunchShape shape;
  void (*kernel)(Parameters...);
  std::tuple<Parameters...> arguments;

  void operator()(const Stream& stream) const {
    std::apply([&](const Parameters&... values) { start(stream, shape, kernel, values...); },
               arguments);
  }
  bool operator==(const KernelCall&) const = default;
};

template <class... Parameters, class... Arguments>
void launch_as(const Stream& stream, const LaunchShape& shape, void (*kernel)(Parameters...),
               const Arguments&... arguments) {
  const KernelCall<Parameters...> call{shape, kernel, {static_cast<Parameters>(arguments)...}};
  if (LaunchList* record = stream.record()) {
    record->add(call);
  } else {
    call(stream);
  }
}

/// Queues a kernel, the one way to start one; where the stream is recorded, writes it down instead.
/// `threads`: of a block, whole warps.
template <class... Parameters, class... Arguments>
void launch(const Stream& stream, dim3 grid, int threads, size_t shared_bytes,
            void (*kernel)(Parameters...), const Arguments&... arguments) {
  launch_as(stream, {grid.x, grid.y, grid.z, threads, shared_bytes}, kernel, arguments...);
}

/// The same of a kernel that calls wait_for_earlier_kernels() (device/dependency.cuh): written down
/// right after another kernel, it may start before that one has ended.
template <class... Parameters, class... Arguments>
void launch_early(const Stream& stream, dim3 grid, int threads, size_t shared_bytes,
                  void (*kernel)(Parameters...), const Arguments&... arguments) {
  const LaunchList* record = stream.record();
  const bool early = stream.overlaps() && record != nullptr && record->ends_in_kernel();
  launch_as(stream, {grid.x, grid.y, grid.z, threads, shared_bytes, early}, kernel, arguments...);
}

}  // namespace medusa::cuda
