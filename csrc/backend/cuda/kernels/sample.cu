// The next token of each row: the likeliest, or, by the Gumbel-max trick, argmax of logits /
// temperature + noise. Both are maxima over ranked keys, which no order of visiting changes.
#include "backend/cuda/device/memory.cuh"
#include "backend/cuda/device/reduce.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/kernels/noise.cuh"
#include "backend/cuda/launch.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kGroup = 64;                  // tokens of sixteen blocks of noise
constexpr int kStretch = 4 * kThreads * 4;  // tokens of one block: four a thread at a time

__host__ __device__ constexpr int stretches(int64_t vocab) {
  return static_cast<int>((vocab + kStretch - 1) / kStretch);
}

struct Best {
  uint64_t likeliest = 0, drawn = 0;
};

__device__ __forceinline__ uint64_t higher(uint64_t a, uint64_t b) { return a > b ? a : b; }

// Tokens group · 64 + slot + {0, 16, 32, 48}.
__device__ __forceinline__ void visit(Best& best, const float* logits, int vocab, int group,
                                      int slot, const DrawRow& row) {
  const bool draws = row.temperature > 0.0f;
  const float inverse = 1.0f / row.temperature;
  NoiseWords noise{};
  if (draws) {
    noise = noise_words(static_cast<uint32_t>(group * 16 + slot), row.seed, row.position);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int token = group * kGroup + i * 16 + slot;
    if (token >= vocab) return;
    const float logit = logits[token];
    best.likeliest = higher(best.likeliest, ranked(logit, token));
    if (draws) {
      best.drawn = higher(best.drawn, ranked(logit * inverse + gumbel(noise.word[i]), token));
    }
  }
}

// Grid: (stretches, rows). bests: [row][stretch][2].
__global__ void __launch_bounds__(kThreads) sample_kernel(SampleArgs a) {
  MEDUSA_SHARED(int, before, 1);
  const DrawRow row = a.rows[blockIdx.y];
  const float* logits = a.logits + row.row * a.vocab;
  Best best;
  for (int i = threadIdx.x; i < kStretch / 4; i += kThreads) {
    visit(best, logits, a.vocab, static_cast<int>(blockIdx.x) * (kStretch / kGroup) + i / 16,
          i % 16, row);
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
    best.likeliest = higher(best.likeliest, load_written(of_row + i * 2));
    best.drawn = higher(best.drawn, load_written(of_row + i * 2 + 1));
  }
  best.likeliest = reduce_block<Highest, kThreads>(best.likeliest);
  best.drawn = reduce_block<Highest, kThreads>(best.drawn);
  if (threadIdx.x != 0) return;
  const bool likeliest = takes_likeliest(row.temperature, ranked_value(best.likeliest));
  a.ids[blockIdx.y] = ranked_id(likeliest ? best.likeliest : best.drawn);
  a.tickets[blockIdx.y] = 0;
}

}  // namespace

int64_t sample_bests(int64_t rows, int64_t vocab) { return rows * stretches(vocab) * 2; }

void sample(const Stream& stream, const SampleArgs& a) {
  const dim3 grid(static_cast<unsigned>(stretches(a.vocab)), static_cast<unsigned>(a.num_rows));
  launch(stream, grid, kThreads, 0, sample_kernel, a);
}

}  // namespace medusa::cuda
