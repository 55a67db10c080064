#pragma once

#include "backend/cuda/backbone_kernels.h"
#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/matrix.cuh"
#include "backend/cuda/device/shared.cuh"
#include "backend/cuda/device/threads.cuh"

// Products of attention over packed documents: tiles of 64 rows and 64 channels in shared memory,
// in C; a warp owns 16 rows of what is computed, in the fragments of matrix.cuh. With f32 the same
// lanes own the same elements and sum them on the ordinary cores. Chunks are counted from the start
// of the document, so that bits do not depend on where it lies.
namespace medusa::cuda {

inline constexpr int kTile = kDocumentTile;
inline constexpr int kTileThreads = 128;
inline constexpr int kTileStride = kTile + 8;  // rows in different banks
inline constexpr int kTileElements = kTile * kTileStride;
inline constexpr unsigned kSlab = 64;  // channels of a tile

using TileSums = float[8][4];  // 16 rows of the warp by 64 columns

constexpr unsigned slabs(int head_dim) {
  return (static_cast<unsigned>(head_dim) + kSlab - 1) / kSlab;
}

/// Up to 64 rows of one head, and where they lie in x (…, cols).
struct HeadRows {
  const float* x;
  int64_t cols, row, column;
  int count, head_dim;
};

// Channels from `first` on; zeros where there is none.
template <class T>
__device__ __forceinline__ void load_tile(T* to, const HeadRows& from, int first) {
  for (int i = threadIdx.x; i < kTile * kTile; i += kTileThreads) {
    const int r = i / kTile, d = i % kTile;
    const bool inside = r < from.count && first + d < from.head_dim;
    const float* at = from.x + (from.row + r) * from.cols + from.column + first + d;
    to[r * kTileStride + d] = from_float<T>(inside ? *at : 0.0f);
  }
}

// Row and column of element c[n][i] of a TileSums in the tile, with the warp's first row.
__device__ __forceinline__ int tile_row(int i) { return warp() * 16 + lane() / 4 + i / 2 * 8; }
__device__ __forceinline__ int tile_column(int n, int i) { return n * 8 + lane() % 4 * 2 + i % 2; }

// Operand A of matrix.cuh: the warp's 16 rows, 16 columns from `k` on.
template <class T>
__device__ __forceinline__ void load_rows(uint32_t (&a)[4], const T* tile, int k) {
  load_matrices(a, tile + (warp() * 16 + lane() % 16) * kTileStride + k + lane() / 16 * 8);
}

// c += left · rightᵀ
template <class T>
__device__ __forceinline__ void multiply_by_rows(TileSums& c, const T* left, const T* right) {
#pragma unroll
  for (int k = 0; k < kTile; k += 16) {
    uint32_t a[4];
    load_rows(a, left, k);
#pragma unroll
    for (int n = 0; n < 8; n += 2) {
      uint32_t b[4];
      const int row = n * 8 + lane() % 8 + lane() / 16 * 8;
      load_matrices(b, right + row * kTileStride + k + lane() / 8 % 2 * 8);
      const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
      multiply_add(c[n], a, low, T{});
      multiply_add(c[n + 1], a, high, T{});
    }
  }
}

// c += left · right
template <class T>
__device__ __forceinline__ void multiply_by_columns(TileSums& c, const T* left, const T* right) {
#pragma unroll
  for (int k = 0; k < kTile; k += 16) {
    uint32_t a[4];
    load_rows(a, left, k);
#pragma unroll
    for (int n = 0; n < 8; n += 2) {
      uint32_t b[4];
      load_matrices_transposed(b,
                               right + (k + lane() % 16) * kTileStride + n * 8 + lane() / 16 * 8);
      const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
      multiply_add(c[n], a, low, T{});
      multiply_add(c[n + 1], a, high, T{});
    }
  }
}

// Both with `right` at (column, k) · stride, on the ordinary cores.
__device__ __forceinline__ void multiply_alone(TileSums& c, const float* left, const float* right,
                                               int column_stride, int k_stride) {
  const float* rows[2] = {left + tile_row(0) * kTileStride, left + tile_row(2) * kTileStride};
#pragma unroll 1
  for (int k = 0; k < kTile; ++k) {
    const float a[2] = {rows[0][k], rows[1][k]};
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float b = right[tile_column(n, i) * column_stride + k * k_stride];
        c[n][i] = fmaf(a[0], b, c[n][i]);
        c[n][i + 2] = fmaf(a[1], b, c[n][i + 2]);
      }
    }
  }
}
__device__ __forceinline__ void multiply_by_rows(TileSums& c, const float* left,
                                                 const float* right) {
  multiply_alone(c, left, right, kTileStride, 1);
}
__device__ __forceinline__ void multiply_by_columns(TileSums& c, const float* left,
                                                    const float* right) {
  multiply_alone(c, left, right, 1, kTileStride);
}

// left · rightᵀ over all of a head's channels. `there`: whether `left` holds the rows already,
// which it does afterwards where they are of one slab.
template <class T>
__device__ __forceinline__ void score_tiles(TileSums& c, T* left, const HeadRows& rows, T* right,
                                            const HeadRows& others, bool there) {
  const bool one_slab = rows.head_dim <= static_cast<int>(kSlab);
#pragma unroll
  for (int e = 0; e < 32; ++e) c[e / 4][e % 4] = 0.0f;
  for (int d = 0; d < rows.head_dim; d += static_cast<int>(kSlab)) {
    sync_block();
    if (!(there && one_slab)) load_tile(left, rows, d);
    load_tile(right, others, d);
    sync_block();
    multiply_by_rows(c, left, right);
  }
}

// sums += weights · right, where each warp has written its own 16 rows of `weights`.
template <class T>
__device__ __forceinline__ void add_weighted(TileSums& sums, const T* weights, T* right,
                                             const HeadRows& rows, int first) {
  sync_block();
  load_tile(right, rows, first);
  sync_block();
  multiply_by_columns(sums, weights, right);
}

template <class T>
__device__ __forceinline__ void put(T* tile, int n, int i, float value) {
  tile[tile_row(i) * kTileStride + tile_column(n, i)] = from_float<T>(value);
}

/// One head's rows of a document, 64 at a time.
struct DocumentHead {
  const TrainAttentionArgs& a;
  DocumentTile tile;

  __device__ __forceinline__ HeadRows chunk(const float* x, int heads, int head, int chunk) const {
    const int rest = tile.length - chunk * kTile;
    return {x,
            int64_t{heads} * a.head_dim,
            tile.first + int64_t{chunk} * kTile,
            int64_t{head} * a.head_dim,
            rest < kTile ? rest : kTile,
            a.head_dim};
  }
  __device__ __forceinline__ HeadRows queries(const float* x, int head, int at) const {
    return chunk(x, a.num_heads, head, at);
  }
  __device__ __forceinline__ HeadRows keys(const float* x, int head, int at) const {
    return chunk(x, a.num_kv_heads, head, at);
  }
  __device__ __forceinline__ int own_chunk() const { return tile.start / kTile; }
  // That some query of the tile sees.
  __device__ __forceinline__ int first_key_chunk() const {
    const int lowest = tile.start - a.window + 1;
    return a.window > 0 && lowest > 0 ? lowest / kTile : 0;
  }
  // That sees some key of the tile.
  __device__ __forceinline__ int last_query_chunk() const {
    const int last = (tile.length - 1) / kTile;
    if (a.window == 0) return last;
    const int seen = (tile.start + kTile - 1 + a.window - 1) / kTile;
    return seen < last ? seen : last;
  }
  __device__ __forceinline__ bool sees(int query, int key) const {
    return key <= query && query < tile.length && (a.window == 0 || query - key < a.window);
  }
};

}  // namespace medusa::cuda
