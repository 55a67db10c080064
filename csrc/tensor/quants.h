#pragma once

#include <bit>
#include <cstdint>

#include "medusa/dtype.h"
#include "tensor/tensor.h"

namespace medusa {

inline float to_float(bf16 value) { return std::bit_cast<float>(uint32_t{value.bits} << 16); }

/// Round to nearest, ties to even; NaN stays NaN.
inline bf16 to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return {0x7fc0};
  return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

float half_to_float(uint16_t half);

/// Round to nearest, ties to even; what is too large becomes infinite, NaN stays NaN.
f16 to_f16(float value);

/// Whether dequantize() reads this type.
bool is_weight_dtype(DType dtype);

/// Widens `elements` values, a multiple of block_elements(dtype), starting at a block.
void dequantize(float* out, const void* data, DType dtype, int64_t elements);

}  // namespace medusa
