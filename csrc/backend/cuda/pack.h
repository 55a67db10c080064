#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/kernels.h"

namespace medusa::cuda {

/// The rows of `weight`, which `host` holds, in the order in which kernels stream them (packing.h),
/// in `dtype`: f32 or bf16. Throws ModelFormatError, naming the weight, for a value that overflows.
std::vector<uint8_t> pack_rows(Backend& host, const Weight& weight, DType dtype, const char* name);

/// The type whose blocks all parts of a source have and kernels read as they are; else f32.
DType common_blocks(const WeightSource& source);
/// The rows of such a source: codes, then scales, then minimums. The source was checked.
std::vector<uint8_t> pack_blocks(const WeightSource& source, DType dtype);

/// How a weight of either kind is packed, and where its pieces lie in its storage.
Format format_of(DType dtype);
PackedWeight pieces_of(const Weight& weight);

}  // namespace medusa::cuda
