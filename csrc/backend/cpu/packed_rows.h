#pragma once

#include <cstdint>

#include "backend/cpu/block_column.h"
#include "backend/weight.h"

namespace medusa::cpu {

/// Where block `index` of a row lies, in a segment whose type has blocks.
BlockColumn packed_block(const Weight& weight, const WeightSegment& segment, int64_t row,
                         int64_t index);

/// Row `row` of a packed weight: in_features elements, widened.
void read_row(float* out, const Weight& weight, int64_t row);

}  // namespace medusa::cpu
