#pragma once

#include "backend/weight.h"
#include "base/thread_pool.h"

namespace medusa::cpu {

/// Packs a weight in `dtype` (f32 or bf16; see LinearArgs::weight for the layout), 16 rows at a
/// time straight from the host tensors. Throws ModelFormatError for shapes, types or sizes that do
/// not fit and for values that are not finite.
Weight pack_weight(const WeightSource& source, DType dtype, ThreadPool& pool);

}  // namespace medusa::cpu
