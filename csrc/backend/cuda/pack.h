#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/kernels.h"
#include "base/thread_pool.h"

namespace medusa::cuda {

// Of sources that were checked.

/// The rows in the order in which kernels stream them (packing.h), in `dtype`: f32, bf16 or f16.
/// Throws ModelFormatError, naming the weight, for a value that is not finite there.
std::vector<uint8_t> pack_rows(const WeightSource& source, DType dtype, ThreadPool& pool);

/// The type of codes that all parts of a source have and kernels read as they are; else f32.
DType common_codes(const WeightSource& source);
/// The rows of such a source: codes, then scales, then minimums.
std::vector<uint8_t> pack_codes(const WeightSource& source, DType dtype, ThreadPool& pool);

DType dtype_of(ComputeType type);
Element element_of(DType dtype);  // of a compute type

/// How a weight of either kind is packed, and where its pieces lie in its storage.
Format format_of(DType dtype);
PackedWeight pieces_of(const Weight& weight);

}  // namespace medusa::cuda
