#pragma once

#include <cstdint>
#include <vector>

#include "medusa/dtype.h"

namespace medusa::benchmark {

/// Where the f16 fields of a block are, or the upper halves of plain numbers.
inline bool exponent_byte(DType dtype, size_t at) {
  if (block_elements(dtype) == 1) return at + 1 == block_bytes(dtype);
  return dtype == DType::q6_k ? at == 209 : at == 1 || at == 3;
}

/// Small numbers of either sign, or random codes with small scales.
inline std::vector<uint8_t> random_bytes(DType dtype, int64_t elements) {
  const size_t block = block_bytes(dtype);
  std::vector<uint8_t> bytes(static_cast<size_t>(elements / block_elements(dtype)) * block);
  const uint8_t exponent = block_elements(dtype) == 1 ? 0x3c : 0x1c;
  uint32_t state = 1;
  for (size_t i = 0; i < bytes.size(); ++i) {
    state = state * 1664525 + 1013904223;
    const auto byte = static_cast<uint8_t>(state >> 24);
    bytes[i] = exponent_byte(dtype, i % block) ? exponent | (byte & 0x80) : byte;
  }
  return bytes;
}

}  // namespace medusa::benchmark
