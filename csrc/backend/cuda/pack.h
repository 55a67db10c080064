#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"

namespace medusa::cuda {

/// The rows of `weight`, which `host` holds, in the order in which kernels stream them (packing.h),
/// in `dtype`: f32 or bf16. Throws ModelFormatError, naming the weight, for a value that overflows.
std::vector<uint8_t> pack_rows(Backend& host, const Weight& weight, DType dtype, const char* name);

}  // namespace medusa::cuda
