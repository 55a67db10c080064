#pragma once

#include "backend/cuda/device/async_copy.cuh"
#include "backend/cuda/device/matrix.cuh"
#include "backend/cuda/device/threads.cuh"
#include "backend/cuda/kernels/attention_source.cuh"

// One chunk of 64 positions: fetched, scored, softened, weighed.
namespace medusa::cuda {

inline constexpr int kAttentionThreads = 128;
inline constexpr int kChunk = kAttentionChunk;
inline constexpr float kLog2E = 1.4426950408889634f;

// A head's vectors in shared memory: `kDim` elements, rows in different banks.
template <int kDim>
inline constexpr int kStride = kDim + 8;

// Of the two queries, g and g + 8 of a warp's 16, whose results a lane holds.
template <int kDim>
struct Online {
  float out[kDim / 8][4] = {};
  float top[2] = {-INFINITY, -INFINITY};
  float total[2] = {};  // this lane's part
};

struct LaneQuery {
  int row = -1;       // of the batch; -1: none
  int position = -1;  // the last one it sees
  int lowest = 0;     // the first one
};

__device__ __forceinline__ LaneQuery lane_query(const AttentionBlock& block, int query) {
  if (query >= block.queries()) return {};
  const int position = block.position(query);
  return {block.row(query), position, block.lowest(position)};
}

template <class T, int kDim>
__device__ __forceinline__ void load_queries(T* to, const AttentionBlock& block) {
  for (int i = threadIdx.x; i < kTileQueries * kDim; i += kAttentionThreads) {
    const int query = i / kDim, d = i % kDim;
    const bool inside = query < block.queries() && d < block.a.head_dim;
    const float value = inside ? block.a.q[block.offset(query) + d] : 0.0f;
    to[query * kStride<kDim> + d] = from_float<T>(value);
  }
}

// kDim channels from `first` on of one chunk's keys or values; zeros where there is none that all
// rows share.
template <class T, int kDim>
__device__ __forceinline__ void load_chunk(T* to, const AttentionBlock& block, const void* pages,
                                           const void* rows, int chunk, int first) {
  constexpr int kVectors = kDim / 8;
  const AttentionSequence& sequence = block.sequence;
  for (int i = threadIdx.x; i < kChunk * kVectors; i += kAttentionThreads) {
    const int slot = i / kVectors, d = i % kVectors * 8, at = chunk * kChunk + slot;
    const T* from = static_cast<const T*>(rows);
    bool inside = first + d < block.a.head_dim && at <= block.tile.last_position;
    if (at >= sequence.committed && sequence.chain == 0) inside = false;
    if (inside) {
      from = at < sequence.committed ? block.cached<T>(pages, at)
                                     : block.fresh<T>(rows, block.ancestor(0, at));
      from += first + d;
    }
    copy_async_16(to + slot * kStride<kDim> + d, from, inside);
  }
}

// Operand A: 16 rows of shared memory, 16 columns from `d` on.
template <class T, int kDim>
__device__ __forceinline__ void load_left(uint32_t (&a)[4], const T* rows, int d) {
  load_matrices(a, rows + lane() % 16 * kStride<kDim> + d + lane() / 16 * 8);
}

// Positions that a row of a tree sees, of a run of them: whether some differ by row.
__device__ __forceinline__ bool differs(const AttentionBlock& block, int first, int count) {
  return block.sequence.chain == 0 && first + count > block.sequence.committed;
}

// The key, or value, from channel `first` on, that `row` sees at a position; null if none.
// `chunk_rows` holds the cached.
template <class T, int kDim>
__device__ __forceinline__ const T* seen(const AttentionBlock& block, const T* chunk_rows,
                                         const void* rows, int row, int last, int at, int first) {
  if (at < block.sequence.committed) return chunk_rows + at % kChunk * kStride<kDim>;
  return at <= last ? block.fresh<T>(rows, block.ancestor(row, at)) + first : nullptr;
}

__device__ __forceinline__ uint32_t two_at(const void* elements) {
  return *static_cast<const uint32_t*>(elements);
}

// Scores of the warp's queries; [8 positions][query g: 2t, 2t + 1, query g + 8: ...]
template <class T, int kDim>
__device__ __forceinline__ void score(float (&scores)[8][4], const T* queries, const T* keys,
                                      int head_dim) {
#pragma unroll
  for (int d = 0; d < kDim; d += 16) {
    if (d >= head_dim) break;
    uint32_t a[4];
    load_left<T, kDim>(a, queries, d);
#pragma unroll
    for (int n = 0; n < 8; n += 2) {
      uint32_t b[4];
      const int slot = n * 8 + lane() % 8 + lane() / 16 * 8;
      load_matrices(b, keys + slot * kStride<kDim> + d + lane() / 8 % 2 * 8);
      const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
      multiply_add(scores[n], a, low, T{});
      multiply_add(scores[n + 1], a, high, T{});
    }
  }
}

// The same for one row's eight positions from `at` on.
template <class T, int kDim>
__device__ __forceinline__ void score_alone(float (&c)[4], const AttentionBlock& block,
                                            const T* queries, const T* keys, int row, int last,
                                            int at) {
  const T* key = seen<T, kDim>(block, keys, block.a.keys, row, last, at + lane() / 4, 0);
  for (int d = 0; d < block.a.head_dim; d += 16) {
    uint32_t a[4], b[2] = {};
    load_left<T, kDim>(a, queries, d);
    if (key != nullptr) {
      b[0] = two_at(key + d + lane() % 4 * 2);
      b[1] = two_at(key + d + 8 + lane() % 4 * 2);
    }
    multiply_add(c, a, b, T{});
  }
}

template <class T, int kDim>
__device__ __forceinline__ void score_tree(float (&scores)[8][4], const AttentionBlock& block,
                                           const LaneQuery (&mine)[2], int first_row, int last_row,
                                           const T* queries, const T* keys, int chunk) {
  for (int row = first_row; row <= last_row; ++row) {
    const int last = block.a.positions[row];
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const int at = chunk * kChunk + n * 8;
      if (!differs(block, at, 8) || at > last) continue;
      float c[4] = {};
      score_alone<T, kDim>(c, block, queries, keys, row, last, at);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (mine[i / 2].row == row) scores[n][i] = c[i];
      }
    }
  }
}

// Scores to weights, rounded as they will be multiplied; what was summed before is scaled down.
template <class T, int kDim>
__device__ __forceinline__ void soften(float (&scores)[8][4], Online<kDim>& online,
                                       const LaneQuery (&mine)[2], float scale, int chunk) {
#pragma unroll
  for (int q = 0; q < 2; ++q) {
    float top = -INFINITY;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const int at = chunk * kChunk + i / 2 * 8 + lane() % 4 * 2 + i % 2;
      float& s = scores[i / 2][q * 2 + i % 2];
      s = at <= mine[q].position && at >= mine[q].lowest ? s * scale : -INFINITY;
      top = fmaxf(top, s);
    }
    top = fmaxf(top, shuffle_xor(top, 1));
    top = fmaxf(top, shuffle_xor(top, 2));
    top = fmaxf(top, online.top[q]);
    const float base = top == -INFINITY ? 0.0f : top;  // nothing seen so far
    const float shrink = exp2f(online.top[q] - base);
    const float factor = online.top[q] == -INFINITY ? 1.0f : shrink;
    online.top[q] = top;
    online.total[q] *= factor;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      online.out[n][q * 2] *= factor;
      online.out[n][q * 2 + 1] *= factor;
    }
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      float& s = scores[i / 2][q * 2 + i % 2];
      s = to_float(from_float<T>(exp2f(s - base)));
      online.total[q] += s;
    }
  }
}

// Operand A of positions 16 · step .. + 15 out of weights as score() leaves them.
template <class T>
__device__ __forceinline__ void pack_weights(uint32_t (&a)[4], const float (&weights)[8][4],
                                             int step) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float* from = weights[step * 2 + i / 2] + i % 2 * 2;
    a[i] = pair<T>(from[0], from[1]);
  }
}

template <class T, int kDim>
__device__ __forceinline__ void weigh(Online<kDim>& online, const uint32_t (&a)[4], const T* values,
                                      int step) {
#pragma unroll
  for (int n = 0; n < kDim / 8; n += 2) {
    uint32_t b[4];
    const int slot = step * 16 + lane() % 16;
    load_matrices_transposed(b, values + slot * kStride<kDim> + n * 8 + lane() / 16 * 8);
    const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
    multiply_add(online.out[n], a, low, T{});
    multiply_add(online.out[n + 1], a, high, T{});
  }
}

// One row's 16 positions from `at` on, in its own queries' sums.
template <class T, int kDim>
__device__ __forceinline__ void weigh_alone(Online<kDim>& online, const AttentionBlock& block,
                                            const LaneQuery (&mine)[2], const uint32_t (&a)[4],
                                            const T* values, int row, int last, int at, int first) {
  const bool own[2] = {mine[0].row == row, mine[1].row == row};
  const uint32_t left[4] = {own[0] ? a[0] : 0, own[1] ? a[1] : 0, own[0] ? a[2] : 0,
                            own[1] ? a[3] : 0};
  const T* value[4];
  for (int i = 0; i < 4; ++i) {
    const int slot = lane() % 4 * 2 + i % 2 + i / 2 * 8;
    value[i] = seen<T, kDim>(block, values, block.a.values, row, last, at + slot, first);
  }
#pragma unroll
  for (int n = 0; n < kDim / 8; ++n) {
    if (first + n * 8 >= block.a.head_dim) break;
    uint32_t bits[4];
    for (int i = 0; i < 4; ++i) {
      bits[i] = value[i] != nullptr ? value[i][n * 8 + lane() / 4].bits : 0;
    }
    const uint32_t right[2] = {bits[0] | bits[1] << 16, bits[2] | bits[3] << 16};
    float c[4] = {online.out[n][0], online.out[n][1], online.out[n][2], online.out[n][3]};
    multiply_add(c, left, right, T{});
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (own[i / 2]) online.out[n][i] = c[i];
    }
  }
}

}  // namespace medusa::cuda
