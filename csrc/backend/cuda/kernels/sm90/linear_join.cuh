#pragma once

#include "backend/cuda/device/cluster.cuh"
#include "backend/cuda/kernels/linear_tile.cuh"

// Where k is split, the blocks of a tile are a cluster. Each lays its sums out in its own shared
// memory and adds up a share of the rows, over all blocks in the order of their splits.
namespace medusa::cuda {

// Of one place in the memory of a tile's blocks, whose ranks are `sharers` apart.
__device__ __forceinline__ float join_peers(const float* mine, int splits, int sharers) {
  const int first = cluster_rank() % sharers;
  float parts[kClusterBlocks] = {};
#pragma unroll
  for (int i = 0; i < kClusterBlocks; ++i) {
    if (i < splits) parts[i] = load_peer(mine, first + i * sharers);
  }
  float sum = parts[0];
#pragma unroll
  for (int i = 1; i < kClusterBlocks; ++i) {
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
template <class T, int kTiles, bool kShared>
__device__ __forceinline__ void finish_together(const LinearArgs& a, int first_row, bool has_panel,
                                                const float (&sums)[2 * kTiles * 4],
                                                float* memory) {
  const SumsTile tile{memory};
  const int split = static_cast<int>(blockIdx.y), rows = min(kTiles * 8, a.rows - first_row);
  const int sharers = kShared ? a.sharers : 1;
  sync_block();
  if (has_panel) lay_out<kTiles>(tile, sums);
  sync_cluster();
  const int column = static_cast<int>(threadIdx.x);
#pragma unroll 1
  for (int r = split; r < rows; r += a.splits) {
    const float* mine = memory + r * SumsTile::kRowStride + column;
    tile.put(r, column, join_peers(mine, a.splits, sharers));
  }
  arrive_at_cluster();  // before outputs are written, which it would wait for
  if (a.finish == Finish::reduce) {
    sync_block();
    reduce_tile(a, tile, first_row, rows, split, a.splits);
  } else {
    for (int r = split; r < rows; r += a.splits) {
      finish_column<T>(a, first_row + r, tile.at(r, column));
    }
  }
  wait_for_cluster();
}

}  // namespace medusa::cuda
