#pragma once

#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/threads.cuh"
#include "base/philox.h"

// Noise of token t at a position: a function of (seed, position, t), the same as on the CPU (docs/
// sampling.md) but for the last bits of the logarithms.
namespace medusa::cuda {

inline constexpr uint32_t kNoiseStream = 0x6d656475;

struct NoiseWords {
  uint32_t word[4];
};
// Token t takes word t / 16 % 4 of block t / 64 · 16 + t % 16.
__device__ __forceinline__ NoiseWords noise_words(uint32_t block, uint64_t seed, int64_t position) {
  const auto at = static_cast<uint64_t>(position);
  const auto words = philox(
      {block, static_cast<uint32_t>(at), static_cast<uint32_t>(at >> 32), kNoiseStream}, seed);
  return {{words[0], words[1], words[2], words[3]}};
}

// Standard Gumbel noise -log(-log(1 - v)), v = (word + 1/2) / 2^32 rounded to f32 and kept below 1.
__device__ __forceinline__ float gumbel(uint32_t word) {
  const auto high = static_cast<float>(word >> 8), low = static_cast<float>(word & 255);
  const float v = high * 0x1p-24f + (low + 0.5f) * 0x1p-32f;
  const float bounded = v < 0x1.fffffep-1f ? v : 0x1.fffffep-1f;
  const float u = 1.0f - bounded;
  // log(1 - v) of the rounded u, put right to first order by what the rounding lost.
  const float exponential = ((u - 1.0f) + bounded) / u - logf(u);
  return -logf(exponential);
}

// Whether the likeliest id, whose logit is `top`, has all the probability.
__device__ __forceinline__ bool takes_likeliest(float temperature, float top) {
  const auto finite = [](float x) { return fabsf(x) < INFINITY; };
  const float inverse = 1.0f / temperature;
  return !(temperature > 0.0f) || !finite(inverse) || !finite(top * inverse);
}

}  // namespace medusa::cuda
