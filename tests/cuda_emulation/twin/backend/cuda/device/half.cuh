#pragma once

#include <cstdint>
#include <cstring>

#include "backend/cuda/device/threads.cuh"

namespace medusa::cuda {

inline float half_bits_to_float(uint16_t bits) {
  _Float16 value;
  std::memcpy(&value, &bits, sizeof value);
  return static_cast<float>(value);
}
inline uint16_t float_to_half_bits(float value) {
  const auto half = static_cast<_Float16>(value);
  uint16_t bits;
  std::memcpy(&bits, &half, sizeof bits);
  return bits;
}

}  // namespace medusa::cuda
