// The next token of each row of logits that lie in memory (draws.cuh).
#include "backend/cuda/device/memory.cuh"
#include "backend/cuda/device/reduce.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/kernels/draws.cuh"
#include "backend/cuda/launch.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kStretch = 4 * kThreads * 4;  // tokens of one block: four a thread at a time

__host__ __device__ constexpr int stretches(int64_t vocab) {
  return static_cast<int>((vocab + kStretch - 1) / kStretch);
}

// Grid: (stretches, rows). bests: [row][stretch][2].
__global__ void __launch_bounds__(kThreads) sample_kernel(SampleArgs a) {
  MEDUSA_SHARED(int, before, 1);
  const DrawRow row = a.rows[blockIdx.y];
  const float* logits = a.logits + row.row * a.vocab;
  BestKeys best;
  for (int i = threadIdx.x; i < kStretch / 4; i += kThreads) {
    visit(best, [&](int, int token) { return logits[token]; }, a.vocab,
          static_cast<int>(blockIdx.x) * (kStretch / kDrawGroup) + i / 16, i % 16,
          {row.seed, row.position, row.temperature});
  }
  best.likeliest = reduce_block<Highest, kThreads>(best.likeliest);
  best.drawn = reduce_block<Highest, kThreads>(best.drawn);
  uint64_t* of_row = a.best + int64_t{blockIdx.y} * gridDim.x * 2;
  if (threadIdx.x == 0) {
    of_row[blockIdx.x * 2] = best.likeliest;
    of_row[blockIdx.x * 2 + 1] = best.drawn;
    fence();
    before[0] = atomic_add(a.tickets + blockIdx.y, 1);
  }
  sync_block();
  if (before[0] != static_cast<int>(gridDim.x) - 1) return;
  fence();
  best = {};
  for (int i = threadIdx.x; i < static_cast<int>(gridDim.x); i += kThreads) {
    best.likeliest = Highest::join(best.likeliest, load_written(of_row + i * 2));
    best.drawn = Highest::join(best.drawn, load_written(of_row + i * 2 + 1));
  }
  best.likeliest = reduce_block<Highest, kThreads>(best.likeliest);
  best.drawn = reduce_block<Highest, kThreads>(best.drawn);
  if (threadIdx.x != 0) return;
  a.ids[blockIdx.y] = chosen_token(best, row.temperature);
  a.tickets[blockIdx.y] = 0;
}

}  // namespace

int64_t sample_bests(int64_t rows, int64_t vocab) { return rows * stretches(vocab) * 2; }

void sample(const Stream& stream, const SampleArgs& a) {
  const dim3 grid(static_cast<unsigned>(stretches(a.vocab)), static_cast<unsigned>(a.num_rows));
  launch(stream, grid, kThreads, 0, sample_kernel, a);
}

}  // namespace medusa::cuda
