#pragma once

#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/float8.cuh"
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

// A panel from some column on, wherever it lies.
struct PanelPieces {
  const char* codes;
  const char* scales;
  const char* minimums;
};

// Where a chunk is read from.
struct FromGlobal {
  __device__ __forceinline__ static uint4 read_16(const char* at) { return load_once_16(at); }
  __device__ __forceinline__ static uint64_t read_8(const char* at) {
    return load_once_8(reinterpret_cast<const uint64_t*>(at));
  }
};
struct FromShared {
  __device__ __forceinline__ static uint4 read_16(const char* at) { return load_16(at); }
  __device__ __forceinline__ static uint64_t read_8(const char* at) {
    return *reinterpret_cast<const uint64_t*>(at);
  }
};

template <class T>
struct PlainWeights {
  using Element = T;  // of x

  struct Chunk {
    uint4 tile[kSteps][2];  // [16 columns][half of the rows]
  };

  static constexpr int kCodeBytes = 1024;  // of a panel, 16 columns
  static constexpr int kFactors = 0;       // arrays of 64 bytes a panel and 32 columns

  __device__ __forceinline__ static PanelPieces at(const LinearArgs& a, int panel, int column) {
    const int64_t steps = int64_t{panel} * (a.k / 16) + column / 16;
    return {static_cast<const char*>(a.weight.codes) + steps * kCodeBytes, nullptr, nullptr};
  }
  // Of 64 columns the first `columns`, 32 or more.
  template <class Read>
  __device__ __forceinline__ static void load(Chunk& chunk, const PanelPieces& from, int columns) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      if (step * 16 >= columns) break;
      const char* tile = from.codes + step * kCodeBytes + lane() * 16;
      chunk.tile[step][0] = Read::read_16(tile);
      chunk.tile[step][1] = Read::read_16(tile + kCodeBytes / 2);
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

// Of a lane's four rows (g, g + 8, g + 16, g + 24) in a block of 32 columns, f16.
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

  static constexpr int kCodeBytes = kBits * 64;
  static constexpr int kFactors = kMinimum ? 2 : 1;

  __device__ __forceinline__ static PanelPieces at(const LinearArgs& a, int panel, int column) {
    const int64_t blocks = int64_t{panel} * (a.k / 32) + column / 32;
    return {static_cast<const char*>(a.weight.codes) + blocks * 2 * kCodeBytes,
            static_cast<const char*>(a.weight.scales) + blocks * 64,
            static_cast<const char*>(a.weight.minimums) + blocks * 64};
  }
  template <class Read>
  __device__ __forceinline__ static void load(Chunk& chunk, const PanelPieces& from, int columns) {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      if (i * kColumns >= columns) break;
      chunk.codes[i] = Read::read_16(from.codes + (i * kWarp + lane()) * 16);
    }
#pragma unroll
    for (int block = 0; block < 2; ++block) {
      if (block * 32 >= columns) break;
      const int at = block * 64 + lane() / 4 * 8;
      chunk.scales[block] = Read::read_8(from.scales + at);
      if (kMinimum) chunk.minimums[block] = Read::read_8(from.minimums + at);
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

// F8_E4M3 codes under f32 scales of 128 columns. A chunk may begin in the midst of those. Each lane
// holds one row's scale and gives it to those that need it: four in each would spill.
struct Float8Weights {
  using Element = bf16;

  struct Chunk {
    uint4 codes[kSteps];
    float scales[2];  // [32 columns], of row lane() / 4 + lane() % 4 · 8
  };

  static constexpr int kCodeBytes = 512;

  // `minimums`: where the scales of the second 32 columns are.
  __device__ __forceinline__ static PanelPieces at(const LinearArgs& a, int panel, int column) {
    const int64_t steps = int64_t{panel} * (a.k / 16) + column / 16;
    const char* scales =
        static_cast<const char*>(a.weight.scales) + int64_t{panel} * scale_blocks(a.k) * 128;
    return {static_cast<const char*>(a.weight.codes) + steps * kCodeBytes,
            scales + column / kScaleColumns * 128, scales + (column + 32) / kScaleColumns * 128};
  }
  template <class Read>
  __device__ __forceinline__ static void load(Chunk& chunk, const PanelPieces& from, int columns) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      if (step * 16 >= columns) break;
      chunk.codes[step] = Read::read_16(from.codes + (step * kWarp + lane()) * 16);
    }
    chunk.scales[0] = reinterpret_cast<const float*>(from.scales)[lane()];
    if (columns > 32) chunk.scales[1] = reinterpret_cast<const float*>(from.minimums)[lane()];
  }
  __device__ __forceinline__ static void operand(uint32_t (&left)[4], const Chunk& chunk, int step,
                                                 int half) {
    const uint4 v = chunk.codes[step];
    const float mine = chunk.scales[step / 2];
    const int first = lane() / 4 * 4 + half * 2;
    const uint32_t words[2] = {half == 0 ? v.x : v.z, half == 0 ? v.y : v.w};
    const float scales[2] = {shuffle(mine, first), shuffle(mine, first + 1)};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t two = words[i / 2] >> (i % 2 * 16);
      left[i] = pair<bf16>(float8_to_float(two & 255) * scales[i % 2],
                           float8_to_float(two >> 8 & 255) * scales[i % 2]);
    }
  }
};

}  // namespace medusa::cuda
