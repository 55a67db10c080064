#pragma once

#include <bit>
#include <cstdint>

#include "backend/cuda/device/half.cuh"
#include "tensor/elements.h"

// Element types and what becomes of them in registers.
namespace medusa::cuda {

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(bf16 value) {
  return std::bit_cast<float>(uint32_t{value.bits} << 16);
}
__device__ __forceinline__ float to_float(f16 value) { return half_bits_to_float(value.bits); }

// Rounded to nearest, ties to even.
template <class T>
__device__ __forceinline__ T from_float(float value);

template <>
__device__ __forceinline__ float from_float<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return {0x7fc0};
  return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}
template <>
__device__ __forceinline__ f16 from_float<f16>(float value) {
  return {float_to_half_bits(value)};
}

// Two 16-bit elements as one register.
template <class T>
__device__ __forceinline__ uint32_t pair(float low, float high) {
  return from_float<T>(low).bits | uint32_t{from_float<T>(high).bits} << 16;
}

}  // namespace medusa::cuda
