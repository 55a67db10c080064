#pragma once

#include <cstdint>

#include "backend/cuda/device/threads.cuh"

namespace medusa::cuda {

inline void set_loop(unsigned long long loop, bool again) {
  *reinterpret_cast<unsigned*>(loop) = again ? 1 : 0;
}
inline uint32_t load_from_host(const uint32_t* from) { return *from; }
inline void show_to_host(uint32_t* to, uint32_t value) { *to = value; }

}  // namespace medusa::cuda
