#pragma once

#include <cstdint>

// Where element (n, k) of a packed weight of `in_features` columns lies. Rows come in panels of 32,
// zero-padded; a warp reads one panel front to back, 512 bytes at a time.
namespace medusa::cuda {

inline constexpr int kPanel = 32;

/// 16-bit weights: [panel][k / 16][2][32 lanes][8], each 16 x 16 tile in the order in which lanes
/// hold it as operand A (device/matrix.cuh).
constexpr int64_t packed_index_16(int64_t n, int64_t k, int64_t in_features) {
  const int64_t row = n % 16, column = k % 16;
  const int64_t lane = row % 8 * 4 + column % 8 / 2;
  const int64_t element = row / 8 * 2 + column / 8 * 4 + column % 2;
  const int64_t tile = (n / kPanel * (in_features / 16) + k / 16) * 2 + n % kPanel / 16;
  return tile * 256 + lane * 8 + element;
}

/// f32 weights: [panel][k / 4][32 rows][4].
constexpr int64_t packed_index_32(int64_t n, int64_t k, int64_t in_features) {
  return (n / kPanel * (in_features / 4) + k / 4) * (4 * kPanel) + n % kPanel * 4 + k % 4;
}

}  // namespace medusa::cuda
