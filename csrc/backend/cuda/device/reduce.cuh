#pragma once

#include <bit>
#include <cstdint>

#include "backend/cuda/device/shared.cuh"
#include "backend/cuda/device/threads.cuh"

// Reductions in an order that the number of threads alone fixes; every thread gets the result.
namespace medusa::cuda {

struct Sum {
  __device__ __forceinline__ static float zero() { return 0.0f; }
  __device__ __forceinline__ static float join(float a, float b) { return a + b; }
};
struct Highest {  // of Ranked
  __device__ __forceinline__ static uint64_t zero() { return 0; }
  __device__ __forceinline__ static uint64_t join(uint64_t a, uint64_t b) { return a > b ? a : b; }
};

template <class Operation, class T>
__device__ __forceinline__ T reduce_warp(T value) {
  for (int bits = kWarp / 2; bits > 0; bits /= 2) {
    value = Operation::join(value, shuffle_xor(value, bits));
  }
  return value;
}

template <class Operation, int kThreads, class T>
__device__ __forceinline__ T reduce_block(T value) {
  MEDUSA_SHARED(T, of_warp, kThreads / kWarp);
  value = reduce_warp<Operation>(value);
  if (lane() == 0) of_warp[warp()] = value;
  sync_block();
  value = reduce_warp<Operation>(lane() < kThreads / kWarp ? of_warp[lane()] : Operation::zero());
  sync_block();  // the next call writes again
  return value;
}

__device__ __forceinline__ float sum_warp(float value) { return reduce_warp<Sum>(value); }
template <int kThreads>
__device__ __forceinline__ float sum_block(float value) {
  return reduce_block<Sum, kThreads>(value);
}

// A logit and its id as one number that grows with the logit and falls with the id; NaN counts as
// -infinity, -0 as 0. Zero is below all.
__device__ __forceinline__ uint64_t ranked(float value, int32_t id) {
  const float known = value == value ? value + 0.0f : -INFINITY;
  const uint32_t bits = std::bit_cast<uint32_t>(known);
  const uint32_t rising = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return uint64_t{rising} << 32 | ~static_cast<uint32_t>(id);
}
__device__ __forceinline__ int32_t ranked_id(uint64_t key) {
  return static_cast<int32_t>(~static_cast<uint32_t>(key));
}
__device__ __forceinline__ float ranked_value(uint64_t key) {
  const auto rising = static_cast<uint32_t>(key >> 32);
  return std::bit_cast<float>(rising & 0x80000000u ? rising & 0x7fffffffu : ~rising);
}

}  // namespace medusa::cuda
