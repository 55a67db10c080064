#pragma once

#include "backend/cuda/device/async_copy.cuh"
#include "backend/cuda/device/matrix.cuh"
#include "backend/cuda/device/shared.cuh"
#include "backend/cuda/kernels/linear_tile.cuh"
#include "backend/cuda/kernels/weight_formats.cuh"
#include "backend/cuda/launch.h"

// out = finish(x · Wᵀ + bias) for few rows: W (n, k) is read once, x comes in tiles of at most 64
// rows.
//
// Roles are swapped: 16 rows of W are the 16-row operand of the tensor cores, 8 rows of x the
// 8-column one, so that time follows the number of rows in steps of 8. A warp streams one packed
// panel of 32 weight rows straight into registers, a chunk of 64 columns ahead; the block's four
// warps share the same columns of x, which arrive in shared memory two chunks ahead. k is split
// over blocks by the weight's shape alone and added up in order by the block that comes last. Each
// output is so one fixed chain of sums, whatever else is in the batch.
namespace medusa::cuda {

inline constexpr int kStages = 3;
inline constexpr int kStride = kChunk + 8;  // elements: rows start in different banks

// Columns column .. column + 63 of the block's rows; zeros beyond rows and columns.
template <class T, int kTiles>
__device__ __forceinline__ void load_x(T* to, const LinearArgs& a, int first_row, int column,
                                       int last) {
  constexpr int kVectors = kChunk / 8;
#pragma unroll
  for (int i = threadIdx.x; i < kTiles * 8 * kVectors; i += kLinearThreads) {
    const int r = i / kVectors, c = i % kVectors * 8;
    const bool inside = first_row + r < a.rows && column + c < last;
    const int64_t at = int64_t{first_row + r} * a.k + column + c;
    copy_async_16(to + r * kStride + c, static_cast<const T*>(a.x) + (inside ? at : 0), inside);
  }
}

// sums of a lane: [half of the panel][tile of 8 rows][4]
template <class Weights, int kTiles>
__device__ __forceinline__ void multiply_chunk(float (&sums)[2][kTiles][4],
                                               const typename Weights::Chunk& weights,
                                               const typename Weights::Element* x, int steps) {
#pragma unroll
  for (int pair = 0; pair < kSteps / 2; ++pair) {  // a split has a multiple of 32 columns
    if (pair * 2 >= steps) break;
    uint32_t left[4][4];  // [step · 2 + half]
#pragma unroll
    for (int i = 0; i < 4; ++i) Weights::operand(left[i], weights, pair * 2 + i / 2, i % 2);
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      uint32_t b[4];
      load_matrices(b, x + (tile * 8 + lane() % 8) * kStride + pair * 32 + lane() / 8 * 8);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint32_t right[2] = {b[i / 2 * 2], b[i / 2 * 2 + 1]};
        multiply_add(sums[i % 2][tile], left[i], right, typename Weights::Element{});
      }
    }
  }
}

// Grid: (tiles of 128 weight rows, splits, tiles of 8 · kTiles rows of x).
template <class Weights, int kTiles>
__global__ void __launch_bounds__(kLinearThreads) linear_kernel(LinearArgs a) {
  using T = typename Weights::Element;
  MEDUSA_DYNAMIC_SHARED(T, x);  // [stage][row][kStride]
  constexpr int kStage = kTiles * 8 * kStride;
  const int panel = static_cast<int>(blockIdx.x) * kBlockPanels + warp();
  const int first_row = static_cast<int>(blockIdx.z) * kTiles * 8;
  const bool has_panel = panel * 32 < a.n;
  const auto range = split_range(a, blockIdx.y);
  const int chunks = (range.last - range.first + kChunk - 1) / kChunk;

  float sums[2][kTiles][4] = {};
  typename Weights::Chunk now, next;
  const auto load = [&](int column) {
    Weights::template load<FromGlobal>(next, Weights::at(a, panel, column), range.last - column);
  };
  if (has_panel) load(range.first);
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (stage < chunks) {
      load_x<T, kTiles>(x + stage * kStage, a, first_row, range.first + stage * kChunk, range.last);
    }
    copy_async_commit();
  }
  for (int chunk = 0; chunk < chunks; ++chunk) {
    const int column = range.first + chunk * kChunk, ahead = chunk + kStages - 1;
    now = next;
    if (has_panel && chunk + 1 < chunks) load(column + kChunk);
    copy_async_wait<kStages - 2>();
    sync_block();
    if (ahead < chunks) {
      load_x<T, kTiles>(x + ahead % kStages * kStage, a, first_row, range.first + ahead * kChunk,
                        range.last);
    }
    copy_async_commit();
    if (has_panel) {
      multiply_chunk<Weights, kTiles>(sums, now, x + chunk % kStages * kStage,
                                      (range.last - column) / 16);
    }
  }
  copy_async_wait<0>();
  MEDUSA_DYNAMIC_SHARED(float, tile);  // x is read no more
  auto& flat = reinterpret_cast<float (&)[2 * kTiles * 4]>(sums);
  if (join_splits(flat, a)) finish_tile<T, kTiles>(a, first_row, panel, has_panel, flat, tile);
}

template <class Weights, int kTiles>
void launch_tiles(const Stream& stream, const LinearArgs& a) {
  const int rows = kTiles * 8;
  const dim3 grid(static_cast<unsigned>((a.n + 127) / 128), static_cast<unsigned>(a.splits),
                  static_cast<unsigned>((a.rows + rows - 1) / rows));
  size_t bytes = sizeof(typename Weights::Element) * kStages * rows * kStride;
  const size_t sums = SumsTile::bytes(rows);
  if (a.finish == Finish::reduce && sums > bytes) bytes = sums;
  launch(stream, grid, kLinearThreads, bytes, linear_kernel<Weights, kTiles>, a);
}

template <class Weights>
void launch_rows(const Stream& stream, const LinearArgs& a) {
  if (a.rows <= 8) return launch_tiles<Weights, 1>(stream, a);
  if (a.rows <= 16) return launch_tiles<Weights, 2>(stream, a);
  if (a.rows <= 32) return launch_tiles<Weights, 4>(stream, a);
  return launch_tiles<Weights, 8>(stream, a);
}

}  // namespace medusa::cuda
