#include "tensor/float8.h"

#include <algorithm>
#include <bit>

#include "tensor/quants.h"

namespace medusa {
namespace {

constexpr uint8_t kMagnitude = 0x7f;  // of a code, and NaN's

const uint8_t* codes_of(const HostTensor& tensor, int64_t row) {
  return static_cast<const uint8_t*>(tensor.data) + row * tensor.shape[1];
}

}  // namespace

// Exponent and fraction at a float's place: 2^-120 of the number, subnormal where the code is.
float float8_to_float(uint8_t code) {
  if ((code & kMagnitude) == kMagnitude) return std::bit_cast<float>(0x7fc00000u);
  const uint32_t bits = uint32_t{code & 0x80u} << 24 | uint32_t{code & 0x7fu} << 20;
  return std::bit_cast<float>(bits) * 0x1p120f;
}

float float8_scale(const HostTensor& tensor, int64_t row, int64_t column) {
  const BlockScales& s = tensor.scales;
  const int64_t per_row = (tensor.shape[1] + s.columns - 1) / s.columns;
  return s.values[row / s.rows * per_row + column / s.columns];
}

void widen_float8_row(float* out, const HostTensor& tensor, int64_t row) {
  const uint8_t* codes = codes_of(tensor, row);
  for (int64_t k = 0; k < tensor.shape[1]; ++k) {
    out[k] = float8_to_float(codes[k]) * float8_scale(tensor, row, k);
  }
}

bool float8_row_fits_bf16(const HostTensor& tensor, int64_t row) {
  const uint8_t* codes = codes_of(tensor, row);
  const int64_t width = tensor.shape[1], step = std::min(tensor.scales.columns, width);
  bool fits = true;
  for (int64_t first = 0; first < width; first += step) {
    uint8_t most = 0;
    for (int64_t k = first; k < std::min(first + step, width); ++k) {
      most = std::max(most, static_cast<uint8_t>(codes[k] & kMagnitude));
    }
    const bf16 value = to_bf16(float8_to_float(most) * float8_scale(tensor, row, first));
    fits &= (value.bits & 0x7f80) != 0x7f80;
  }
  return fits;
}

}  // namespace medusa
