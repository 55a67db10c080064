#pragma once

#include "backend/cuda/device/cluster.cuh"
#include "backend/cuda/kernels/linear_tile.cuh"

// Where k is split, the blocks of a tile are a cluster. Each lays its sums out in its own shared
// memory and adds up a share of the rows, over all blocks in the order of their splits.
namespace medusa::cuda {

// Of one place in every block's memory.
__device__ __forceinline__ float join_peers(const float* mine, int splits) {
  float parts[kMostSplitsSm90] = {};
#pragma unroll
  for (int i = 0; i < kMostSplitsSm90; ++i) {
    if (i < splits) parts[i] = load_peer(mine, i);
  }
  float sum = parts[0];
#pragma unroll
  for (int i = 1; i < kMostSplitsSm90; ++i) {
    if (i < splits) sum += parts[i];
  }
  return sum;
}

// Column threadIdx.x of the tile. Of a panel the lower lanes have gates, the upper ones what they
// are multiplied with.
template <class T>
__device__ __forceinline__ void finish_column(const LinearArgs& a, int row, float sum) {
  const int n = static_cast<int>(blockIdx.x) * kLinearThreads + static_cast<int>(threadIdx.x);
  if (a.finish != Finish::silu_mul) return finish_one<T>(a, row, n, sum);
  const float up = shuffle_xor(sum, 16);
  if (lane() < 16) finish_pair<T>(a, row, n, sum, up);
}

// `memory`: shared, SumsTile::bytes(8 · kTiles); nobody reads it any more.
template <class T, int kTiles>
__device__ __forceinline__ void finish_together(const LinearArgs& a, int first_row, bool has_panel,
                                                const float (&sums)[2 * kTiles * 4],
                                                float* memory) {
  const SumsTile tile{memory};
  const int rank = cluster_rank(), rows = min(kTiles * 8, a.rows - first_row);
  sync_block();
  if (has_panel) lay_out<kTiles>(tile, sums);
  sync_cluster();
#pragma unroll 1
  for (int r = rank; r < rows; r += a.splits) {
    const float sum = join_peers(memory + r * SumsTile::kRowStride + threadIdx.x, a.splits);
    if (a.finish == Finish::reduce) {
      tile.put(r, static_cast<int>(threadIdx.x), sum);
    } else {
      finish_column<T>(a, first_row + r, sum);
    }
  }
  arrive_at_cluster();
  if (a.finish == Finish::reduce) {
    sync_block();
    reduce_tile(a, tile, first_row, rows, rank, a.splits);
  }
  wait_for_cluster();
}

}  // namespace medusa::cuda
