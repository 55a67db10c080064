#pragma once

#include "backend/cuda/kernels.h"
#include "backend/cuda/runtime.h"

namespace medusa::cuda {

/// The kernels for a device: those for compute capability 9.0 where it is that, or what
/// MEDUSA_CUDA_KERNELS says (auto, portable or sm90). Throws InvalidArgument for anything else, and
/// for sm90 on another device.
KernelSet kernel_set_of(const DeviceInfo& device);

/// Whether kernels may start early, which devices from compute capability 9.0 on can: what
/// MEDUSA_CUDA_OVERLAP says, 1 or 0 (or nothing). Throws InvalidArgument for anything else, and for
/// 1 on an earlier device.
bool overlap_wanted(const DeviceInfo& device);

/// Most steps that the device takes before the host asks for them: what MEDUSA_CUDA_LOOP says, 0
/// (or nothing) to kMostStepsAhead. Throws InvalidArgument for anything else, and without `graphs`.
int steps_wanted(bool graphs);
inline constexpr int kMostStepsAhead = 4096;

}  // namespace medusa::cuda
