#pragma once

#include "backend/cuda/device/threads.cuh"

namespace medusa::cuda {

inline void let_next_kernel_start() {}
inline void wait_for_earlier_kernels() { emulation::follow(); }
inline void follow_earlier_kernels() { emulation::follow(); }

}  // namespace medusa::cuda
