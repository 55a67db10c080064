#pragma once

#include "backend/cuda/device/shared.cuh"
#include "backend/cuda/kernels/draws.cuh"
#include "backend/cuda/kernels/linear_finish.cuh"
#include "backend/cuda/kernels/softmax_sums.cuh"

// Finish::reduce: of a block's tile of logits, rows of x by 128 ids, one small record a row is kept
// and the logits are not. A warp takes a row, always in the same way, so a record depends on its
// row and tile alone.
namespace medusa::cuda {

static_assert(kLogitsTile == kBlockPanels * 32 && kLogitsTile == 2 * kDrawGroup);

// Sums of a tile in shared memory: [row][id].
struct SumsTile {
  static constexpr int kRowStride = kLogitsTile + 4;  // the rows of a store start in other banks
  static constexpr size_t bytes(int rows) { return sizeof(float) * kRowStride * rows; }

  __device__ __forceinline__ void put(int row, int id, float sum) const {
    sums[row * kRowStride + id] = sum;
  }
  __device__ __forceinline__ float at(int row, int id) const { return sums[row * kRowStride + id]; }
  float* sums;
};

// A row of the tile: lane l holds the logits of ids first_id + l / 16 · 64 + l % 16 + {0, 16, 32,
// 48}, the four that share a block of noise.
struct RowOfTile {
  int64_t record;  // row · tiles + tile
  int row, first_id, vocab;
  float logit[4];

  __device__ __forceinline__ int id(int i) const {
    return first_id + lane() / 16 * kDrawGroup + i * 16 + lane() % 16;
  }
};

__device__ __forceinline__ RowOfTile row_of_tile(const LinearArgs& a, const SumsTile& tile,
                                                 int first_row, int r) {
  RowOfTile out{int64_t{first_row + r} * gridDim.x + blockIdx.x,
                first_row + r,
                static_cast<int>(blockIdx.x) * kLogitsTile,
                a.n,
                {}};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int id = out.id(i);
    if (id >= a.n) continue;
    out.logit[i] = biased(a, tile.at(r, id - out.first_id), id);
    if (a.out != nullptr) static_cast<float*>(a.out)[int64_t{out.row} * a.n + id] = out.logit[i];
  }
  return out;
}

// The tile's k highest keys, zeros where it has fewer.
__device__ __forceinline__ void keep_top_k(const LogitsRecords& records, const RowOfTile& row) {
  uint64_t* out = records.keys + row.record * records.k;
  uint64_t keys[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) keys[i] = row.id(i) < row.vocab ? ranked(row.logit[i], row.id(i)) : 0;
  for (int rank = 0; rank < records.k; ++rank) {
    const uint64_t mine =
        Highest::join(Highest::join(keys[0], keys[1]), Highest::join(keys[2], keys[3]));
    const uint64_t best = reduce_warp<Highest>(mine);
    if (lane() == 0) out[rank] = best;
#pragma unroll
    for (int i = 0; i < 4; ++i) keys[i] = keys[i] == best ? 0 : keys[i];
  }
}

// The likeliest and the drawn key; gives the likeliest.
__device__ __forceinline__ uint64_t keep_best(const LogitsRecords& records, const RowOfTile& row,
                                              const LogitsRow& asked) {
  BestKeys best;
  visit(best, [&](int i, int) { return row.logit[i]; }, row.vocab,
        row.first_id / kDrawGroup + lane() / 16, lane() % 16,
        {asked.seed, asked.position, asked.temperature});
  best.likeliest = reduce_warp<Highest>(best.likeliest);
  if (asked.temperature > 0.0f) best.drawn = reduce_warp<Highest>(best.drawn);
  if (lane() == 0) {
    records.keys[row.record * 2] = best.likeliest;
    records.keys[row.record * 2 + 1] = best.drawn;
  }
  return best.likeliest;
}

__device__ __forceinline__ void keep_sums(const LogitsRecords& records, const RowOfTile& row,
                                          const LogitsRow& asked, float top) {
  SoftmaxSums sums{};
  const float inverse = 1.0f / asked.judged_temperature;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (row.id(i) < row.vocab) sums.add(row.logit[i], top, inverse);
  }
  const float weights = sum_warp(sums.weights), exponents = sum_warp(sums.exponents);
  if (lane() != 0) return;
  records.sums[row.record * 2] = weights;
  records.sums[row.record * 2 + 1] = exponents;
}

// The logits of those of the row's tokens that lie in the tile.
__device__ __forceinline__ void keep_tokens(const LinearArgs& a, const SumsTile& tile, int r,
                                            const RowOfTile& row, const LogitsRow& asked) {
  const int last = asked.first_token + asked.num_tokens;
  for (int i = asked.first_token + lane(); i < last; i += kWarp) {
    const int id = a.records.tokens[i];
    if (id < row.first_id || id >= row.first_id + kLogitsTile) continue;
    a.records.token_logits[i] = biased(a, tile.at(r, id - row.first_id), id);
  }
}

// Of the tile's rows `first`, `first` + `step`, ...
__device__ __forceinline__ void reduce_tile(const LinearArgs& a, const SumsTile& tile,
                                            int first_row, int rows, int first = 0, int step = 1) {
#pragma unroll 1
  for (int r = first + warp() * step; r < rows && first_row + r < a.rows;
       r += kBlockPanels * step) {
    const RowOfTile row = row_of_tile(a, tile, first_row, r);
    if (a.records.k > 0) {
      keep_top_k(a.records, row);
      continue;
    }
    const LogitsRow asked = a.records.rows[row.row];
    const uint64_t likeliest = keep_best(a.records, row, asked);
    if (asked.num_tokens == 0) continue;
    keep_sums(a.records, row, asked, ranked_value(likeliest));
    keep_tokens(a, tile, r, row, asked);
  }
}

}  // namespace medusa::cuda
