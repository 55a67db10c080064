#pragma once

#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/memory.cuh"
#include "backend/cuda/device/threads.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/packing.h"

// How a warp reads its panel of 32 weight rows, 64 columns at a time, and turns it into operand A
// of the tensor cores. Blocks are widened in registers to the very values that a bf16 weight would
// hold, so that a product's bits do not tell in which of the two it was stored.
namespace medusa::cuda {

inline constexpr int kChunk = 64;  // columns
inline constexpr int kSteps = kChunk / 16;

template <class T>
struct PlainWeights {
  using Element = T;  // of x

  struct Chunk {
    uint4 tile[kSteps][2];  // [16 columns][half of the rows]
  };

  __device__ __forceinline__ static void load(Chunk& chunk, const LinearArgs& a, int panel,
                                              int column, int last) {
    const auto* from = static_cast<const uint4*>(a.weight.codes) +
                       int64_t{panel} * (a.k / 16) * 2 * kWarp + lane();
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int at = column + step * 16;
      if (at >= last) break;
      chunk.tile[step][0] = load_once_16(from + at / 16 * 2 * kWarp);
      chunk.tile[step][1] = load_once_16(from + (at / 16 * 2 + 1) * kWarp);
    }
  }
  __device__ __forceinline__ static void operand(uint32_t (&left)[4], const Chunk& chunk, int step,
                                                 int half) {
    const uint4 w = chunk.tile[step][half];
    left[0] = w.x;
    left[1] = w.y;
    left[2] = w.z;
    left[3] = w.w;
  }
};

// f16 factors of a lane's four rows (g, g + 8, g + 16, g + 24) in a block of 32 columns.
__device__ __forceinline__ uint64_t load_factors(const void* factors, const LinearArgs& a,
                                                 int panel, int column) {
  const int64_t block = int64_t{panel} * (a.k / 32) + column / 32;
  return load_once_8(static_cast<const uint64_t*>(factors) + block * 8 + lane() / 4);
}
__device__ __forceinline__ float factor_of(uint64_t factors, int row) {
  return half_bits_to_float(static_cast<uint16_t>(factors >> (row * 16)));
}

// Codes of 8 or 4 bits that count from an offset, or from a minimum of each block.
template <int kBits, bool kMinimum>
struct BlockWeights {
  using Element = bf16;

  static constexpr int kVectors = kBits == 8 ? kSteps : kSteps / 2;  // of 16 bytes, a lane
  static constexpr int kColumns = kChunk / kVectors;

  struct Chunk {
    uint4 codes[kVectors];
    uint64_t scales[2], minimums[kMinimum ? 2 : 1];  // [32 columns]
  };

  __device__ __forceinline__ static void load(Chunk& chunk, const LinearArgs& a, int panel,
                                              int column, int last) {
    const auto* codes = static_cast<const uint4*>(a.weight.codes) +
                        int64_t{panel} * (a.k / kColumns) * kWarp + lane();
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const int at = column + i * kColumns;
      if (at < last) chunk.codes[i] = load_once_16(codes + at / kColumns * kWarp);
    }
#pragma unroll
    for (int block = 0; block < 2; ++block) {
      const int at = column + block * 32;
      if (at >= last) break;
      chunk.scales[block] = load_factors(a.weight.scales, a, panel, at);
      if (kMinimum) chunk.minimums[block] = load_factors(a.weight.minimums, a, panel, at);
    }
  }

  // Two neighbouring codes of the word that holds a lane's eight, or four, of a tile.
  __device__ __forceinline__ static int code(const Chunk& chunk, int step, int half, int element) {
    const uint4& v = chunk.codes[step * kVectors / kSteps];
    const uint32_t words[4] = {v.x, v.y, v.z, v.w};
    if (kBits == 8) {
      return static_cast<int>(words[half * 2 + element / 4] >> (element % 4 * 8) & 255) - 128;
    }
    const int nibble = static_cast<int>(words[step % 2 * 2 + half] >> (element * 4) & 15);
    return kMinimum ? nibble : nibble - 8;
  }
  __device__ __forceinline__ static float value(const Chunk& chunk, int step, int half,
                                                int element) {
    const int row = half * 2 + element / 2 % 2, block = step / 2;
    const float scaled =
        static_cast<float>(code(chunk, step, half, element)) * factor_of(chunk.scales[block], row);
    return kMinimum ? scaled + factor_of(chunk.minimums[kMinimum ? block : 0], row) : scaled;
  }
  __device__ __forceinline__ static void operand(uint32_t (&left)[4], const Chunk& chunk, int step,
                                                 int half) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      left[i] = pair<bf16>(value(chunk, step, half, i * 2), value(chunk, step, half, i * 2 + 1));
    }
  }
};

}  // namespace medusa::cuda
