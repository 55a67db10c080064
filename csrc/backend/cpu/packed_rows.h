#pragma once

#include <cstdint>

#include "backend/cpu/block_column.h"
#include "backend/weight.h"

namespace medusa::cpu {

/// Where block `index` of a row lies, in a segment whose type has blocks.
BlockColumn packed_block(const Weight& weight, const WeightSegment& segment, int64_t row,
                         int64_t index);

/// One column of a panel of F8_E4M3 (block_layout.h): a row of the matrix.
struct Float8Column {
  uint8_t* codes;  // of the panel
  float* scales;   // likewise
  int64_t column;

  uint8_t& code(int64_t k) const { return codes[(k / 4 * kPanel + column) * 4 + k % 4]; }
  float& scale(int64_t k) const { return scales[k / kScaleColumns * kPanel + column]; }
};
Float8Column packed_float8(const Weight& weight, const WeightSegment& segment, int64_t row);

/// Row `row` of a packed weight: in_features elements, widened.
void read_row(float* out, const Weight& weight, int64_t row);

}  // namespace medusa::cpu
