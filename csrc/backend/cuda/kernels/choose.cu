// What rows of logits were asked for, out of the records that products left of them (linear_reduce.
// cuh): a block a row, sums in an order that the vocabulary alone fixes.
#include "backend/cuda/device/reduce.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/kernels/draws.cuh"
#include "backend/cuda/kernels/softmax_sums.cuh"
#include "backend/cuda/launch.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ BestKeys best_keys(const uint64_t* keys, int tiles) {
  BestKeys best;
  for (int i = threadIdx.x; i < tiles; i += kThreads) {
    best.likeliest = Highest::join(best.likeliest, keys[i * 2]);
    best.drawn = Highest::join(best.drawn, keys[i * 2 + 1]);
  }
  return {reduce_block<Highest, kThreads>(best.likeliest),
          reduce_block<Highest, kThreads>(best.drawn)};
}

__device__ __forceinline__ SoftmaxSums row_sums(const uint64_t* keys, const float* of_tiles,
                                                int tiles, float top, float inverse) {
  SoftmaxSums sums{};
  for (int i = threadIdx.x; i < tiles; i += kThreads) {
    sums.add({of_tiles[i * 2], of_tiles[i * 2 + 1]}, (ranked_value(keys[i * 2]) - top) * inverse);
  }
  return {sum_block<kThreads>(sums.weights), sum_block<kThreads>(sums.exponents)};
}

__global__ void __launch_bounds__(kThreads) choose_kernel(ChooseArgs a) {
  const int tiles = logits_tiles(a.vocab);
  const int64_t at = int64_t{blockIdx.x} * tiles * 2;
  const LogitsRow row = a.records.rows[blockIdx.x];
  const BestKeys best = best_keys(a.records.keys + at, tiles);
  if (threadIdx.x == 0) a.ids[blockIdx.x] = chosen_token(best, row.temperature);
  if (row.num_tokens == 0) return;
  const int first = row.first_token, last = first + row.num_tokens;
  const float top = ranked_value(best.likeliest);
  if (takes_likeliest(row.judged_temperature, top)) {
    if (threadIdx.x == 0) a.entropies[row.entropy] = 0.0f;
    for (int i = first + static_cast<int>(threadIdx.x); i < last; i += kThreads) {
      a.log_probs[i] = a.records.tokens[i] == ranked_id(best.likeliest) ? 0.0f : -INFINITY;
    }
    return;
  }
  const float inverse = 1.0f / row.judged_temperature;
  const SoftmaxSums sums = row_sums(a.records.keys + at, a.records.sums + at, tiles, top, inverse);
  const float log_sum = logf(sums.weights);
  if (threadIdx.x == 0) a.entropies[row.entropy] = sums.entropy();
  for (int i = first + static_cast<int>(threadIdx.x); i < last; i += kThreads) {
    const float logit = a.records.token_logits[i];
    a.log_probs[i] = logit > -INFINITY ? (logit - top) * inverse - log_sum : -INFINITY;
  }
}

// The highest key below `bound` of every 256th tile, each of which is sorted.
__device__ __forceinline__ uint64_t best_below(const uint64_t* keys, int tiles, int k,
                                               uint64_t bound) {
  uint64_t best = 0;
  for (int tile = threadIdx.x; tile < tiles; tile += kThreads) {
    const uint64_t* of_tile = keys + int64_t{tile} * k;
    int rank = 0;
    while (rank < k && of_tile[rank] >= bound) ++rank;
    if (rank < k) best = Highest::join(best, of_tile[rank]);
  }
  return best;
}

__global__ void __launch_bounds__(kThreads) merge_top_k_kernel(MergeTopKArgs a) {
  const int tiles = logits_tiles(a.vocab);
  const uint64_t* keys = a.keys + int64_t{blockIdx.x} * tiles * a.k;
  uint64_t mine = best_below(keys, tiles, a.k, ~uint64_t{0});
  for (int rank = 0; rank < a.k; ++rank) {
    const uint64_t best = reduce_block<Highest, kThreads>(mine);
    if (mine == best) mine = best_below(keys, tiles, a.k, best);
    if (threadIdx.x != 0) continue;
    a.values[int64_t{blockIdx.x} * a.k + rank] = ranked_value(best);
    a.ids[int64_t{blockIdx.x} * a.k + rank] = ranked_id(best);
  }
}

}  // namespace

void choose(const Stream& stream, const ChooseArgs& a) {
  launch(stream, dim3(static_cast<unsigned>(a.num_rows)), kThreads, 0, choose_kernel, a);
}

void merge_top_k(const Stream& stream, const MergeTopKArgs& a) {
  launch(stream, dim3(static_cast<unsigned>(a.rows)), kThreads, 0, merge_top_k_kernel, a);
}

}  // namespace medusa::cuda
