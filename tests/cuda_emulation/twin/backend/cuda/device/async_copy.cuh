#pragma once

#include "backend/cuda/device/threads.cuh"

namespace medusa::cuda {

inline void copy_async_16(void* to_shared, const void* from, bool valid,
                          Where where = Where::current()) {
  emulation::check_followed(where);
  emulation::queue_copy(to_shared, valid ? from : nullptr, where);
}
inline void copy_async_commit() { emulation::commit_copies(); }
template <int N>
void copy_async_wait() {
  emulation::wait_for_copies(N);
}

}  // namespace medusa::cuda
