#pragma once

#include <cmath>
#include <random>
#include <vector>

#include "kernel_case.h"

namespace medusa {

/// What a code of E4M3 means, by its definition.
inline double float8_number(uint8_t code) {
  const int exponent = code >> 3 & 15, fraction = code & 7;
  const double size =
      exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10);
  return code & 0x80 ? -size : size;
}

/// Random codes, all but NaN, under random scales of blocks of `height` by `width`.
struct Float8Matrix {
  Float8Matrix(int64_t n, int64_t k, int64_t height, int64_t width, uint32_t seed)
      : rows(n), cols(k), codes(static_cast<size_t>(n * k)) {
    std::mt19937 random(seed);
    for (uint8_t& code : codes) {
      while (((code = static_cast<uint8_t>(random())) & 0x7f) == 0x7f) continue;
    }
    const int64_t across = (k + width - 1) / width;
    scales.resize(static_cast<size_t>((n + height - 1) / height * across));
    std::uniform_real_distribution<float> scale(1e-4f, 2e-3f);
    for (float& s : scales) s = scale(random);
    tensor = {codes.data(), codes.size(), DType::f8_e4m3, {n, k}, {scales.data(), height, width}};
  }
  Float8Matrix(const Float8Matrix&) = delete;

  float scale(int64_t n, int64_t k) const {
    const BlockScales& s = tensor.scales;
    return scales[static_cast<size_t>(n / s.rows * ((cols + s.columns - 1) / s.columns) +
                                      k / s.columns)];
  }
  /// As products see it.
  float at(int64_t n, int64_t k) const {
    const double number = float8_number(codes[static_cast<size_t>(n * cols + k)]);
    return to_float(to_bf16(static_cast<float>(number * scale(n, k))));
  }

  int64_t rows, cols;
  std::vector<uint8_t> codes;
  std::vector<float> scales;
  HostTensor tensor;
};

/// Each output lies near the sum of its products in float64.
inline void expect_exact_products(const Matrix& out, const Matrix& x, const Float8Matrix& w) {
  for (int64_t r = 0; r < x.view().rows; ++r) {
    for (int64_t c = 0; c < w.rows; ++c) {
      double expected = 0, size = 0;
      for (int64_t i = 0; i < w.cols; ++i) {
        expected += x.at(r, i) * w.at(c, i);
        size += std::abs(x.at(r, i) * w.at(c, i));
      }
      ASSERT_NEAR(out.at(r, c), expected, 2e-6 * size) << r << ", " << c;
    }
  }
}

/// Scales of the whole, of rows, and of blocks that rows and columns do not fill.
struct Float8Shape {
  int64_t n, k, height, width;
};
inline constexpr Float8Shape kFloat8Shapes[] = {
    {33, 32, 33, 32}, {64, 256, 1, 256}, {130, 576, 128, 128}, {40, 1056, 16, 256}};

}  // namespace medusa
