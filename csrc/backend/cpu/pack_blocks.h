#pragma once

#include <cstdint>

#include "backend/weight.h"
#include "base/thread_pool.h"

namespace medusa::cpu {

/// Packs one segment of a weight, whose type has blocks, as block_layout.h says; the storage is
/// zero. Throws ModelFormatError for scales that are not finite.
void pack_blocks(const WeightSource& source, const WeightSegment& segment, Weight& weight,
                 ThreadPool& pool);

/// Likewise a segment of F8_E4M3. Throws ModelFormatError for values that are not finite in bf16.
void pack_float8(const WeightSource& source, const WeightSegment& segment, Weight& weight,
                 ThreadPool& pool);

}  // namespace medusa::cpu
