#pragma once

#include <vector>

#include "backend/cpu/block_layout.h"
#include "backend/cpu/kernels.h"
#include "backend/weight.h"
#include "medusa/config.h"

namespace medusa::cpu {

/// Index into a kernel table; a type that weights are packed in.
ElementType element_type(DType dtype);

/// Likewise; a type of the key/value cache.
int cache_type(DType dtype);

/// Of a type that has a block_format().
BlockLayout block_layout(DType dtype);

/// Bytes of one packed panel of in_features columns.
size_t panel_bytes(DType dtype, int64_t in_features);

/// The types that a source is packed in: its own where weights are kept as stored and products read
/// it, else `compute`, as are rows of packed F8_E4M3. Parts that are interleaved must agree, and
/// those of different types begin at whole panels; else all is widened to `compute`.
std::vector<WeightSegment> plan_segments(const WeightSource& source, DType compute,
                                         WeightFormat format);

/// The segment that has a row.
const WeightSegment& segment_of(const Weight& weight, int64_t row);

}  // namespace medusa::cpu
