#pragma once

#include "backend/cuda/device/memory.cuh"
#include "backend/cuda/device/shared.cuh"
#include "backend/cuda/kernels/attention_step.cuh"

// What becomes of a split's sums: the result, or a part that the last split to come merges.
namespace medusa::cuda {

// What a split has of one query: its top, total and sums.
template <int kDim>
inline constexpr int kPartial = kDim + 2;

template <int kDim>
__device__ __forceinline__ float* partials_of(const AttentionBlock& block, int split) {
  const int64_t head = int64_t{blockIdx.x} * gridDim.y + blockIdx.y;
  return block.a.partials + (head * block.a.num_splits + split) * kTileQueries * kPartial<kDim>;
}

// body(q, query) for the lane's queries that exist.
template <class Body>
__device__ __forceinline__ void for_each_query(const AttentionBlock& block, const Body& body) {
#pragma unroll
  for (int q = 0; q < 2; ++q) {
    const int query = warp() * 16 + lane() / 4 + q * 8;
    if (query < block.queries()) body(q, query);
  }
}

template <class T>
__device__ __forceinline__ T normalised(float sum, float total) {
  return from_float<T>(sum / total + 0.0f);  // -0 becomes 0
}

template <class T, int kDim>
__device__ __forceinline__ void store_result(const AttentionBlock& block,
                                             const Online<kDim>& online, int first) {
  for_each_query(block, [&](int q, int query) {
    T* out = static_cast<T*>(block.a.out) + block.offset(query) + first;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      const int d = n * 8 + lane() % 4 * 2;
      if (first + d >= block.a.head_dim) break;
      out[d] = normalised<T>(online.out[n][q * 2], online.total[q]);
      out[d + 1] = normalised<T>(online.out[n][q * 2 + 1], online.total[q]);
    }
  });
}

template <int kDim>
__device__ __forceinline__ void store_partial(const AttentionBlock& block, float* partials,
                                              const Online<kDim>& online) {
  for_each_query(block, [&](int q, int query) {
    float* to = partials + query * kPartial<kDim>;
    to[0] = online.top[q];
    to[1] = online.total[q];
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      const int d = n * 8 + lane() % 4 * 2;
      to[2 + d] = online.out[n][q * 2];
      to[3 + d] = online.out[n][q * 2 + 1];
    }
  });
}

// Splits in which a query sees nothing weigh nothing.
template <class T, int kDim>
__device__ __forceinline__ void merge(const AttentionBlock& block, int splits, int first_dim) {
  const int dims = min(kDim, block.a.head_dim - first_dim);
  const float* partials = partials_of<kDim>(block, 0);
  constexpr int64_t kSplit = kTileQueries * kPartial<kDim>;
  for (int i = threadIdx.x; i < block.queries() * dims; i += kAttentionThreads) {
    const int query = i / dims, d = i % dims;
    const float* first = partials + query * kPartial<kDim>;
    float top = -INFINITY, total = 0.0f, sum = 0.0f;
    for (int s = 0; s < splits; ++s) top = fmaxf(top, load_written(first + s * kSplit));
    for (int s = 0; s < splits; ++s) {
      const float weight = exp2f(load_written(first + s * kSplit) - top);
      total = fmaf(load_written(first + s * kSplit + 1), weight, total);
      sum = fmaf(load_written(first + s * kSplit + 2 + d), weight, sum);
    }
    T* out = static_cast<T*>(block.a.out) + block.offset(query) + first_dim;
    out[d] = normalised<T>(sum, total);
  }
}

// Whether this block is the last of its splits.
__device__ __forceinline__ bool comes_last(const AttentionArgs& a, int splits) {
  MEDUSA_SHARED(int, before, 1);
  int* ticket = a.tickets + blockIdx.x * gridDim.y + blockIdx.y;
  fence();
  sync_block();
  if (threadIdx.x == 0) {
    before[0] = atomic_add(ticket, 1);
    if (before[0] == splits - 1) *ticket = 0;
  }
  sync_block();
  fence();
  return before[0] == splits - 1;
}

}  // namespace medusa::cuda
