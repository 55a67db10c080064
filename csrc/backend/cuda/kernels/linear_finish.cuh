#pragma once

#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/memory.cuh"
#include "backend/cuda/device/shared.cuh"
#include "backend/cuda/device/threads.cuh"
#include "backend/cuda/kernels.h"

// What both kinds of products share: blocks of 128 threads, a warp a panel of 32 weight rows; sums
// over splits of k, and what becomes of them.
namespace medusa::cuda {

inline constexpr int kLinearThreads = 128;
inline constexpr int kBlockPanels = kLinearThreads / kWarp;
inline constexpr int kSplitUnit = 32;  // columns

struct SplitRange {
  int first, last;  // of k
};
__device__ __forceinline__ SplitRange split_range(const LinearArgs& a, int split) {
  const int64_t units = a.k / kSplitUnit;
  return {static_cast<int>(units * split / a.splits) * kSplitUnit,
          static_cast<int>(units * (split + 1) / a.splits) * kSplitUnit};
}

// The block's tile of the output, counted over the whole grid.
__device__ __forceinline__ int64_t output_tile() {
  return int64_t{blockIdx.z} * gridDim.x + blockIdx.x;
}

// Adds the sums of all splits in their order; true in the block that came last, which has them.
template <int kSums>
__device__ __forceinline__ bool join_splits(float (&sums)[kSums], const LinearArgs& a) {
  if (a.splits == 1) return true;
  MEDUSA_SHARED(int, before, 1);
  float* tile = a.partials + output_tile() * a.splits * kSums * kLinearThreads + threadIdx.x;
  float* mine = tile + int64_t{blockIdx.y} * kSums * kLinearThreads;
  for (int i = 0; i < kSums; ++i) mine[i * kLinearThreads] = sums[i];
  fence();
  sync_block();
  if (threadIdx.x == 0) before[0] = atomic_add(a.tickets + output_tile(), 1);
  sync_block();
  if (before[0] != a.splits - 1) return false;
  fence();
  for (int i = 0; i < kSums; ++i) sums[i] = load_written(tile + i * kLinearThreads);
  for (int split = 1; split < a.splits; ++split) {
    const float* part = tile + int64_t{split} * kSums * kLinearThreads;
    for (int i = 0; i < kSums; ++i) sums[i] += load_written(part + i * kLinearThreads);
  }
  if (threadIdx.x == 0) a.tickets[output_tile()] = 0;
  return true;
}

__device__ __forceinline__ float silu(float x) { return x / (1.0f + expf(-x)); }

__device__ __forceinline__ float biased(const LinearArgs& a, float sum, int n) {
  return a.bias == nullptr ? sum : sum + a.bias[n];
}

// One output of every kind but silu_mul.
template <class T>
__device__ __forceinline__ void finish_one(const LinearArgs& a, int row, int n, float sum) {
  if (row >= a.rows || n >= a.n) return;
  const float value = biased(a, sum, n);
  const int64_t at = int64_t{row} * a.n + n;
  if (a.finish == Finish::store) {
    static_cast<float*>(a.out)[at] = value;
  } else if (a.finish == Finish::add) {
    static_cast<float*>(a.out)[at] += value;
  } else {
    const T* x = static_cast<const T*>(a.x) + int64_t{row} * a.k;
    static_cast<T*>(a.out)[at] = from_float<T>(silu(value) + to_float(x[n]));
  }
}

// Row n of the weight is a gate's, row n + 16 of the same column of `up`.
template <class T>
__device__ __forceinline__ void finish_pair(const LinearArgs& a, int row, int n, float gate,
                                            float up) {
  if (row >= a.rows || n >= a.n) return;
  const int64_t at = int64_t{row} * (a.n / 2) + n / 32 * 16 + n % 16;
  const float value = silu(biased(a, gate, n)) * biased(a, up, n + 16);
  static_cast<T*>(a.out)[at] = from_float<T>(value);
}

}  // namespace medusa::cuda
