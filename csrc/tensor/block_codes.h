#pragma once

#include <cstdint>

#include "medusa/dtype.h"

namespace medusa {

/// One block of a quantised format, its fields spread to bytes. Element i is
/// scale · s[i / unit] · code - (minimum · m[i / 32]) as BlockFormat says.
struct BlockCodes {
  uint16_t scale;       // f16
  uint16_t minimum;     // f16; formats with a minimum
  uint8_t scales[16];   // super-blocks: of 32 elements; signed, of 16, where there is no minimum
  uint8_t minimums[8];  // super-blocks with a minimum: of 32 elements
  uint8_t codes[256];   // unsigned
};

/// What tells one block format from another.
struct BlockFormat {
  int bits;      // of a code
  int groups;    // of 32 elements: 1, or 8 in a super-block, whose groups have scales of their own
  bool minimum;  // added (subtracted in super-blocks); else codes count from 1 << (bits - 1)

  constexpr int elements() const { return 32 * groups; }
  constexpr int offset() const { return minimum ? 0 : 1 << (bits - 1); }
};

/// Null for types that are not read block by block.
const BlockFormat* block_format(DType dtype);

/// One block as it lies in a file (ggml-quants), of a type that has a block_format().
BlockCodes read_block(const void* block, DType dtype);

/// The block's elements, the same bits that dequantize() gives.
void widen_block(float* out, const BlockCodes& block, const BlockFormat& format);

}  // namespace medusa
