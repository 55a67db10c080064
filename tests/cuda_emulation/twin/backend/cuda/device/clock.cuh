#pragma once

#include <chrono>
#include <cstdint>

#include "backend/cuda/device/threads.cuh"

namespace medusa::cuda {

inline int64_t nanoseconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

}  // namespace medusa::cuda
