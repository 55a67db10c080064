#pragma once

#include "backend/cuda/device/reduce.cuh"
#include "backend/cuda/kernels/noise.cuh"

// A row's next token: the likeliest, or, by the Gumbel-max trick, argmax of logit / temperature +
// noise. Both are maxima over ranked keys, which no order of visiting changes.
namespace medusa::cuda {

inline constexpr int kDrawGroup = 64;  // tokens of sixteen blocks of noise

struct BestKeys {
  uint64_t likeliest = 0, drawn = 0;
};

/// What draws at one row.
struct Drawer {
  uint64_t seed;
  int64_t position;
  float temperature;
};

// Tokens group · 64 + slot + {0, 16, 32, 48} below `vocab`; logit(i, token) of the i-th.
template <class Logit>
__device__ __forceinline__ void visit(BestKeys& best, const Logit& logit, int vocab, int group,
                                      int slot, const Drawer& drawer) {
  const bool draws = drawer.temperature > 0.0f;
  const float inverse = 1.0f / drawer.temperature;
  NoiseWords noise{};
  if (draws) {
    noise = noise_words(static_cast<uint32_t>(group * 16 + slot), drawer.seed, drawer.position);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int token = group * kDrawGroup + i * 16 + slot;
    if (token >= vocab) return;
    const float value = logit(i, token);
    best.likeliest = Highest::join(best.likeliest, ranked(value, token));
    if (draws) {
      const float noisy = value * inverse + gumbel(noise.word[i]);
      best.drawn = Highest::join(best.drawn, ranked(noisy, token));
    }
  }
}

// Of the best keys of a whole row.
__device__ __forceinline__ int32_t chosen_token(const BestKeys& best, float temperature) {
  const bool likeliest = takes_likeliest(temperature, ranked_value(best.likeliest));
  return ranked_id(likeliest ? best.likeliest : best.drawn);
}

}  // namespace medusa::cuda
