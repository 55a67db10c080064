#pragma once

#include <bit>
#include <cstdint>

// 8-bit floats: E4M3 without infinities.
namespace medusa::cuda {

// Of a code that is not NaN. Exponent and fraction at a float's place are 2^-120 of the number,
// subnormal where the code is.
__device__ __forceinline__ float float8_to_float(uint32_t code) {
  return std::bit_cast<float>((code & 0x80u) << 24 | (code & 0x7fu) << 20) * 0x1p120f;
}

}  // namespace medusa::cuda
