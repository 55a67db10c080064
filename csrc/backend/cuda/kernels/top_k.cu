// The k highest logits of each row, best first, lowest ids first among equals. Blocks find the best
// k of a stretch of the row; the one that comes last picks the best k of theirs.
#include "backend/cuda/device/memory.cuh"
#include "backend/cuda/device/reduce.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/launch.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kStretch = 4096;  // logits of one block

__host__ __device__ constexpr int stretches(int64_t vocab) {
  return static_cast<int>((vocab + kStretch - 1) / kStretch);
}

// Hands the k highest of key(0 .. count - 1), all different, to take(rank, key) on every thread;
// zeros where there are fewer. A thread keeps the best of every 128th and looks for its next best
// only when that was taken.
template <class Key, class Take>
__device__ __forceinline__ void select(int count, int k, const Key& key, const Take& take) {
  const auto best_below = [&](uint64_t bound) {
    uint64_t best = 0;
    for (int i = threadIdx.x; i < count; i += kThreads) {
      const uint64_t candidate = key(i);
      if (candidate < bound && candidate > best) best = candidate;
    }
    return best;
  };
  uint64_t mine = best_below(~uint64_t{0});
  for (int rank = 0; rank < k; ++rank) {
    const uint64_t best = reduce_block<Highest, kThreads>(mine);
    take(rank, best);
    if (mine == best && best != 0) mine = best_below(best);
  }
}

// Grid: (stretches, rows).
__global__ void __launch_bounds__(kThreads) top_k_kernel(TopKArgs a) {
  MEDUSA_SHARED(int, before, 1);
  const int64_t row = blockIdx.y;
  const int first = static_cast<int>(blockIdx.x) * kStretch;
  const int count = a.vocab - first < kStretch ? a.vocab - first : kStretch;
  const float* logits = a.logits + row * a.vocab + first;
  uint64_t* of_row = a.candidates + row * gridDim.x * a.k;
  select(
      count, a.k, [&](int i) { return ranked(logits[i], first + i); },
      [&](int rank, uint64_t key) {
        if (threadIdx.x == 0) of_row[blockIdx.x * a.k + rank] = key;
      });
  fence();
  sync_block();
  if (threadIdx.x == 0) before[0] = atomic_add(a.tickets + row, 1);
  sync_block();
  if (before[0] != static_cast<int>(gridDim.x) - 1) return;
  fence();
  select(
      static_cast<int>(gridDim.x) * a.k, a.k, [&](int i) { return load_written(of_row + i); },
      [&](int rank, uint64_t key) {
        if (threadIdx.x != 0) return;
        a.values[row * a.k + rank] = ranked_value(key);
        a.ids[row * a.k + rank] = ranked_id(key);
      });
  if (threadIdx.x == 0) a.tickets[row] = 0;
}

}  // namespace

int64_t top_k_candidates(int64_t rows, int64_t vocab, int k) { return rows * stretches(vocab) * k; }

void top_k(const Stream& stream, const TopKArgs& a) {
  const dim3 grid(static_cast<unsigned>(stretches(a.vocab)), static_cast<unsigned>(a.rows));
  launch(stream, grid, kThreads, 0, top_k_kernel, a);
}

}  // namespace medusa::cuda
