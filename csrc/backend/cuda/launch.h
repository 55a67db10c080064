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

/// Whether what is queued next follows a kernel and need not wait for its end.
inline bool may_start_early(const Stream& stream) {
  const LaunchList* record = stream.record();
  return stream.overlaps() && record != nullptr && record->ends_in_kernel();
}

/// The same of a kernel that calls wait_for_earlier_kernels() (device/dependency.cuh): written down
/// right after another kernel, it may start before that one has ended.
template <class... Parameters, class... Arguments>
void launch_early(const Stream& stream, dim3 grid, int threads, size_t shared_bytes,
                  void (*kernel)(Parameters...), const Arguments&... arguments) {
  launch_as(stream, {grid.x, grid.y, grid.z, threads, shared_bytes, may_start_early(stream)},
            kernel, arguments...);
}

/// As launch_early(), in clusters of blocks (device/cluster.cuh): compute capability 9.0 on. The
/// grid is of whole clusters, of at most 8 blocks.
template <class... Parameters, class... Arguments>
void launch_clusters(const Stream& stream, dim3 grid, dim3 cluster, int threads,
                     size_t shared_bytes, void (*kernel)(Parameters...),
                     const Arguments&... arguments) {
  const LaunchShape shape{
      grid.x, grid.y, grid.z, threads, shared_bytes, may_start_early(stream), cluster.x, cluster.y};
  launch_as(stream, shape, kernel, arguments...);
}

}  // namespace medusa::cuda
