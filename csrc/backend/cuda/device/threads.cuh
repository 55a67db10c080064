#pragma once

#include <cstdint>

// Blocks are one-dimensional and of whole warps. Every name here has a twin of the same name in
// tests/cuda_emulation.
namespace medusa::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / kWarp; }

__device__ __forceinline__ void sync_block() { __syncthreads(); }
__device__ __forceinline__ void sync_warp(unsigned mask = kAllLanes) { __syncwarp(mask); }

// The value of another lane: of lane `source`, or of the lane whose number differs in `bits`.
template <class T>
__device__ __forceinline__ T shuffle(T value, int source, unsigned mask = kAllLanes) {
  return __shfl_sync(mask, value, source);
}
template <class T>
__device__ __forceinline__ T shuffle_xor(T value, int bits, unsigned mask = kAllLanes) {
  return __shfl_xor_sync(mask, value, bits);
}
__device__ __forceinline__ unsigned ballot(bool vote, unsigned mask = kAllLanes) {
  return __ballot_sync(mask, vote);
}

// Both return the value before.
__device__ __forceinline__ int atomic_add(int* at, int value) { return atomicAdd(at, value); }
__device__ __forceinline__ int atomic_max(int* at, int value) { return atomicMax(at, value); }
// Writes before it are seen by every block that sees a write after it.
__device__ __forceinline__ void fence() { __threadfence(); }

}  // namespace medusa::cuda
