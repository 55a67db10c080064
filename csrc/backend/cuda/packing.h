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

/// Codes of 8 bits: [panel][k / 16][32 lanes][2][8], the lane's elements of two tiles as above.
/// Byte.
constexpr int64_t packed_index_8(int64_t n, int64_t k, int64_t in_features) {
  const int64_t step = n / kPanel * (in_features / 16) + k / 16;
  const int64_t in_tile = packed_index_16(n % 16, k % 16, 16);
  return (step * 32 + in_tile / 8) * 16 + n % kPanel / 16 * 8 + in_tile % 8;
}

/// Codes of 4 bits: [panel][k / 32][32 lanes][2 tiles of k][2 tiles of n][8]. Nibble, the even one
/// of a byte low.
constexpr int64_t packed_index_4(int64_t n, int64_t k, int64_t in_features) {
  const int64_t block = n / kPanel * (in_features / 32) + k / 32;
  const int64_t in_tile = packed_index_16(n % 16, k % 16, 16);
  return ((block * 32 + in_tile / 8) * 4 + k % 32 / 16 * 2 + n % kPanel / 16) * 8 + in_tile % 8;
}

/// Factors of blocks of 32 columns: [panel][k / 32][8][rows g, g + 8, g + 16, g + 24].
constexpr int64_t packed_factor_index(int64_t n, int64_t k, int64_t in_features) {
  const int64_t block = n / kPanel * (in_features / 32) + k / 32;
  return block * kPanel + n % 8 * 4 + n % kPanel / 8;
}

/// Scales of F8_E4M3, f32, one for every 128 columns: [panel][k / 128][8][rows g, g + 8, g + 16,
/// g + 24].
inline constexpr int kScaleColumns = 128;
constexpr int64_t scale_blocks(int64_t in_features) {
  return (in_features + kScaleColumns - 1) / kScaleColumns;
}
constexpr int64_t packed_scale_index(int64_t n, int64_t k, int64_t in_features) {
  const int64_t block = n / kPanel * scale_blocks(in_features) + k / kScaleColumns;
  return block * kPanel + n % 8 * 4 + n % kPanel / 8;
}

/// f32 weights: [panel][k / 4][32 rows][4].
constexpr int64_t packed_index_32(int64_t n, int64_t k, int64_t in_features) {
  return (n / kPanel * (in_features / 4) + k / 4) * (4 * kPanel) + n % kPanel * 4 + k % 4;
}

}  // namespace medusa::cuda
