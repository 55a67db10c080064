#pragma once

#include "backend/weight.h"
#include "base/thread_pool.h"
#include "medusa/config.h"

namespace medusa::cpu {

/// Packs a weight straight from the host tensors, 16 rows at a time: in `compute` (f32 or bf16; see
/// LinearArgs::weight for the layout) or, see plan_segments(), in blocks as they are. Throws
/// ModelFormatError for shapes, types or sizes that do not fit and for values that are not finite.
Weight pack_weight(const WeightSource& source, DType compute, WeightFormat format,
                   ThreadPool& pool);

}  // namespace medusa::cpu
