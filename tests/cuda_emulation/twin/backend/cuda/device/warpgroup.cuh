#pragma once

#include <cstdint>

#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/matrix.cuh"
#include "backend/cuda/device/swizzle.cuh"
#include "shared_memory.h"

namespace medusa::cuda {

namespace twin {

// Element (row, k) of an operand, found as tensor cores find it: the address first, as if nothing
// were swizzled, then the exchange of its bits 4 to 6 by bits 7 to 9.
template <class T>
float right_element(uint64_t descriptor, int row, int k, Where where) {
  const auto start = static_cast<uint32_t>(descriptor & 0x3fff) << 4;
  const auto group = static_cast<uint32_t>(descriptor >> 32 & 0x3fff) << 4;
  if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0) {
    emulation::fail("an operand that is not swizzled by 128 bytes", where);
  }
  uint32_t address =
      start + static_cast<uint32_t>(row / 8) * group + static_cast<uint32_t>(row % 8 * 128 + k * 2);
  address ^= (address >> 7 & 7) << 4;
  const void* at = emulation::at_shared_address(address, 2, "an operand", where);
  if (emulation::is_hidden(static_cast<const char*>(at) - address % 16)) {
    emulation::fail("a product of copies that were not shown to products", where);
  }
  T bits;
  std::memcpy(&bits, at, sizeof bits);
  return to_float(bits);
}

// Rows 16 w to 16 w + 15 of the product, of warp w. Each sum is of exact products, rounded once.
template <class T, int kTiles>
void multiply_rows(void* const (&operands)[32], unsigned) {
  const auto& first = *static_cast<const emulation::AsyncProduct*>(operands[0]);
  float right[8 * kTiles][16], left[16][16];
  for (int n = 0; n < 8 * kTiles; ++n) {
    for (int k = 0; k < 16; ++k) right[n][k] = right_element<T>(first.right, n, k, first.where);
  }
  for (int l = 0; l < kWarp; ++l) {
    const auto& mine = *static_cast<const emulation::AsyncProduct*>(operands[l]);
    for (int i = 0; i < 8; ++i) {
      left[l / 4 + i / 2 % 2 * 8][2 * (l % 4) + i % 2 + i / 4 * 8] =
          half_of<T>(mine.left[i / 2], i % 2);
    }
  }
  for (int l = 0; l < kWarp; ++l) {
    float* sums = static_cast<const emulation::AsyncProduct*>(operands[l])->sums;
    for (int i = 0; i < 4 * kTiles; ++i) {
      const float* row = left[l / 4 + i % 4 / 2 * 8];
      const float* column = right[i / 4 * 8 + l % 4 * 2 + i % 2];
      double sum = sums[i];
      for (int k = 0; k < 16; ++k) sum += static_cast<double>(row[k]) * column[k];
      sums[i] = static_cast<float>(sum);
    }
  }
}

}  // namespace twin

inline void fence_products() { emulation::fence_product_operands(); }
inline void commit_products() { emulation::commit_products(); }
template <int kTiles>
void wait_for_products(float (&)[2][kTiles][4], Where where = Where::current()) {
  emulation::wait_for_products(0, where);
}
inline void show_to_products() { emulation::show_to_products(); }

template <class T, int kTiles>
void multiply_async(float (&c)[kTiles][4], const uint32_t (&a)[4], uint64_t b, T,
                    Where where = Where::current()) {
  emulation::queue_product({&c[0][0], a, b, twin::multiply_rows<T, kTiles>, where}, where);
}

}  // namespace medusa::cuda
