#pragma once

#include <stdint.h>

// Where the parts of quantised weights lie in a panel of 32 columns. A record holds one block of
// every column, records follow one another along K, everything in lines of 64 bytes:
//
//   scales      f16 of 32 columns
//   minimums    f16 of 32 columns, where the format has them
//   groups      1 or 8 of 32 elements of K:
//     codes     a line is 16 columns by 4 elements of K. Nibbles: line (i, column block) holds
//               elements 4i .. 4i + 3 low and 16 + 4i .. high, i = 0 .. 3; bytes: i = 0 .. 7
//     bits      5-bit codes: line (column block), bit i of a byte is the fifth of element 4i + ...;
//               6-bit codes: line (half, column block), two bits for each of four i
//     factors   super-blocks: two bytes for each of 32 columns, scales then minimums, or scales of
//               either half of the group where there are no minimums
//
// A panel of F8_E4M3 is not cut into records: all codes, then the scales.
//
//   codes       a line is 16 columns by 4 elements of K
//   scales      f32 of 32 columns for every 128 of K
namespace medusa::cpu {

inline constexpr int kLine = 64;

inline constexpr int kScaleColumns = 128;  // of K, that share a scale of F8_E4M3

// Bytes of one F8_E4M3 panel's codes, and of it all.
constexpr int64_t float8_code_bytes(int64_t k) { return k / 4 * 2 * kLine; }
constexpr int64_t float8_panel_bytes(int64_t k) {
  return float8_code_bytes(k) + (k + kScaleColumns - 1) / kScaleColumns * 2 * kLine;
}

struct BlockLayout {
  int bits, groups;
  bool minimum;

  constexpr int header_bytes() const { return kLine * (minimum ? 2 : 1); }
  constexpr int low_bytes() const { return kLine * (bits == 8 ? 16 : 8); }
  constexpr int high_bytes() const { return bits == 8 ? 0 : kLine * 2 * (bits - 4); }
  constexpr int factor_bytes() const { return groups > 1 ? kLine : 0; }
  constexpr int group_bytes() const { return low_bytes() + high_bytes() + factor_bytes(); }
  constexpr int record_bytes() const { return header_bytes() + groups * group_bytes(); }
};

}  // namespace medusa::cpu
