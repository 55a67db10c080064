#pragma once

#include "backend/cuda/kernels/linear_reduce.cuh"

// What becomes of the sums of a block of the tensor cores' products. A lane has of its warp's panel
// and of every tile of 8 rows of x operand C of matrix.cuh, [half of the panel][tile][4].
namespace medusa::cuda {

template <class T, int kTiles>
__device__ __forceinline__ void finish(const LinearArgs& a, int first_row, int panel,
                                       const float (&sums)[2 * kTiles * 4]) {
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = first_row + tile * 8 + lane() % 4 * 2 + i % 2;
      const int n = panel * 32 + lane() / 4 + i / 2 * 8;
      const float low = sums[tile * 4 + i], high = sums[(kTiles + tile) * 4 + i];
      if (a.finish == Finish::silu_mul) {
        finish_pair<T>(a, row, n, low, high);
      } else {
        finish_one<T>(a, row, n, low);
        finish_one<T>(a, row, n + 16, high);
      }
    }
  }
}

template <int kTiles>
__device__ __forceinline__ void lay_out(const SumsTile& tile, const float (&sums)[2 * kTiles * 4]) {
#pragma unroll
  for (int i = 0; i < 2 * kTiles * 4; ++i) {
    const int row = i / 4 % kTiles * 8 + lane() % 4 * 2 + i % 2;
    tile.put(row, warp() * 32 + lane() / 4 + i % 4 / 2 * 8 + i / (4 * kTiles) * 16, sums[i]);
  }
}

// Of sums that are whole. `memory`: shared, SumsTile::bytes(8 · kTiles) where logits are reduced;
// nobody reads it any more.
template <class T, int kTiles>
__device__ __forceinline__ void finish_tile(const LinearArgs& a, int first_row, int panel,
                                            bool has_panel, const float (&sums)[2 * kTiles * 4],
                                            float* memory) {
  if (a.finish == Finish::reduce) {
    sync_block();
    if (has_panel) lay_out<kTiles>({memory}, sums);
    sync_block();
    reduce_tile(a, {memory}, first_row, kTiles * 8);
  } else if (has_panel) {
    finish<T, kTiles>(a, first_row, panel, sums);
  }
}

}  // namespace medusa::cuda
