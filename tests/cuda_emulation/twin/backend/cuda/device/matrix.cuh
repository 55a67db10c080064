#pragma once

#include <cstdint>

#include "backend/cuda/device/element.cuh"
#include "shared_memory.h"

namespace medusa::cuda {

namespace twin {

struct Product {
  float (&c)[4];
  const uint32_t (&a)[4];
  const uint32_t (&b)[2];
};

template <class T>
float half_of(uint32_t pair, int high) {
  return to_float(T{static_cast<uint16_t>(high != 0 ? pair >> 16 : pair)});
}

// Gathers A (16, 16) and B (16, 8) from the lanes, by the fragments' definition.
template <class T>
void gather(void* const (&operands)[32], float (&a)[16][16], float (&b)[8][16]) {
  for (int l = 0; l < kWarp; ++l) {
    const auto& from = *static_cast<const Product*>(operands[l]);
    const int g = l / 4, t = l % 4;
    for (int i = 0; i < 8; ++i) {
      a[g + i / 2 % 2 * 8][2 * t + i % 2 + i / 4 * 8] = half_of<T>(from.a[i / 2], i % 2);
    }
    for (int i = 0; i < 4; ++i) b[g][2 * t + i % 2 + i / 2 * 8] = half_of<T>(from.b[i / 2], i % 2);
  }
}

// Each sum is of exact products and rounded once.
template <class T>
void multiply(void* const (&operands)[32], unsigned) {
  float a[16][16], b[8][16];
  gather<T>(operands, a, b);
  for (int l = 0; l < kWarp; ++l) {
    auto& to = *static_cast<Product*>(operands[l]);
    for (int i = 0; i < 4; ++i) {
      const float* row = a[l / 4 + i / 2 * 8];
      const float* column = b[l % 4 * 2 + i % 2];
      double sum = to.c[i];
      for (int k = 0; k < 16; ++k) sum += static_cast<double>(row[k]) * column[k];
      to.c[i] = static_cast<float>(sum);
    }
  }
}

struct Load {
  uint32_t (&to)[4];
  const void* row;
  Where where;
};

inline uint32_t element(void* const (&operands)[32], int matrix, int row, int column) {
  uint16_t bits;
  const auto* from = static_cast<const Load*>(operands[matrix * 8 + row])->row;
  std::memcpy(&bits, static_cast<const uint16_t*>(from) + column, sizeof bits);
  return bits;
}

template <bool kTransposed>
void load(void* const (&operands)[32], unsigned) {
  for (void* operand : operands) {
    const auto& mine = *static_cast<const Load*>(operand);
    emulation::check_shared(mine.row, 16, "a row of a matrix", mine.where);
    if (reinterpret_cast<uintptr_t>(mine.row) % 16 != 0) {
      emulation::fail("a row of a matrix that does not start at a multiple of 16", mine.where);
    }
  }
  for (int l = 0; l < kWarp; ++l) {
    auto& mine = *static_cast<Load*>(operands[l]);
    const int g = l / 4, t = l % 4;
    for (int m = 0; m < 4; ++m) {
      const uint32_t low =
          kTransposed ? element(operands, m, 2 * t, g) : element(operands, m, g, 2 * t);
      const uint32_t high =
          kTransposed ? element(operands, m, 2 * t + 1, g) : element(operands, m, g, 2 * t + 1);
      mine.to[m] = low | high << 16;
    }
  }
}

}  // namespace twin

template <class T>
void multiply_add(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], T,
                  Where where = Where::current()) {
  twin::Product mine{c, a, b};
  emulation::meet_warp(kAllLanes, twin::multiply<T>, &mine, where);
}
inline void load_matrices(uint32_t (&to)[4], const void* row, Where where = Where::current()) {
  twin::Load mine{to, row, where};
  emulation::meet_warp(kAllLanes, twin::load<false>, &mine, where);
}
inline void load_matrices_transposed(uint32_t (&to)[4], const void* row,
                                     Where where = Where::current()) {
  twin::Load mine{to, row, where};
  emulation::meet_warp(kAllLanes, twin::load<true>, &mine, where);
}

}  // namespace medusa::cuda
