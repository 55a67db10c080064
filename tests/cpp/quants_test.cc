#include "tensor/quants.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "medusa/error.h"

namespace medusa {
namespace {

// Bytes of four blocks from a linear congruential generator, their half-precision fields replaced
// by small positive numbers; and sums over the values x of cos((i + 1) (s + 1)) x[i], s = 0 .. 3,
// computed from the same bytes with the `gguf` Python package (0.19.0, quants.dequantize).
struct Golden {
  DType dtype;
  std::vector<size_t> halves;  // byte offsets
  double sums[4];
};
const Golden kGolden[] = {
    {DType::q8_0, {0}, {6.70108943, 3.44917286, -48.336584, -28.4795499}},
    {DType::q4_0, {0}, {0.317233989, -7.01569015, 0.557100048, -0.843291476}},
    {DType::q4_1, {0, 2}, {-3.38078956, -0.231233151, -1.0510415, 2.85017902}},
    {DType::q5_0, {0}, {-7.44630927, -3.07105822, -4.63145849, 2.09088091}},
    {DType::q5_1, {0, 2}, {1.42174504, -4.99686784, -3.00332589, 0.285000208}},
    {DType::q2_k, {80, 82}, {-7.14195436, 18.8504512, -14.8952328, -8.70984851}},
    {DType::q3_k, {108}, {155.506723, -7.66630456, -40.8876954, 37.1472346}},
    {DType::q4_k, {0, 2}, {-145.446888, -87.6459707, 58.3127259, -165.979901}},
    {DType::q5_k, {0, 2}, {-348.334106, -451.762587, 425.122525, -799.462263}},
    {DType::q6_k, {208}, {3187.18383, -233.882239, 585.400752, -5844.28065}},
};
constexpr int kBlocks = 4;

std::vector<uint8_t> golden_bytes(const Golden& golden) {
  std::vector<uint8_t> bytes(kBlocks * block_bytes(golden.dtype));
  uint32_t state = 12345;
  for (uint8_t& byte : bytes) {
    state = state * 1664525 + 1013904223;
    byte = static_cast<uint8_t>(state >> 24);
  }
  for (size_t b = 0; b < kBlocks; ++b) {
    for (size_t j = 0; j < golden.halves.size(); ++j) {
      uint8_t* half = &bytes[b * block_bytes(golden.dtype) + golden.halves[j]];
      half[0] = static_cast<uint8_t>(16 * b + 7);
      half[1] = static_cast<uint8_t>(0x2c + j);
    }
  }
  return bytes;
}

TEST(Quants, equal_the_gguf_package) {
  for (const Golden& golden : kGolden) {
    const std::vector<uint8_t> bytes = golden_bytes(golden);
    std::vector<float> x(static_cast<size_t>(kBlocks * block_elements(golden.dtype)));
    dequantize(x.data(), bytes.data(), golden.dtype, static_cast<int64_t>(x.size()));
    for (int s = 0; s < 4; ++s) {
      double sum = 0, magnitude = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        sum += x[i] * std::cos(static_cast<double>(i + 1) * (s + 1));
        magnitude += std::abs(x[i]);
      }
      EXPECT_NEAR(sum, golden.sums[s], 1e-6 * magnitude) << name(golden.dtype);
    }
  }
}

TEST(Quants, halves_widen_exactly) {
  EXPECT_EQ(half_to_float(0x3c00), 1.0f);
  EXPECT_EQ(half_to_float(0xc000), -2.0f);
  EXPECT_EQ(half_to_float(0x7bff), 65504.0f);
  EXPECT_EQ(half_to_float(0x0001), 0x1p-24f);
  EXPECT_EQ(half_to_float(0x83ff), -0x1.ff8p-15f);
  EXPECT_EQ(half_to_float(0x0400), 0x1p-14f);
  EXPECT_TRUE(std::signbit(half_to_float(0x8000)));
  EXPECT_TRUE(std::isinf(half_to_float(0x7c00)));
  EXPECT_TRUE(std::isnan(half_to_float(0x7e00)));
}

TEST(Quants, bf16_rounds_to_nearest_even) {
  EXPECT_EQ(to_bf16(1.0f).bits, 0x3f80);
  EXPECT_EQ(to_bf16(1.0f + 0x1p-8f).bits, 0x3f80);
  EXPECT_EQ(to_bf16(1.0f + 0x1.8p-7f).bits, 0x3f82);
  EXPECT_TRUE(std::isnan(to_float(to_bf16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_TRUE(std::isinf(to_float(to_bf16(std::numeric_limits<float>::max()))));
}

TEST(Dtype, names_round_trip) {
  for (int i = 0; i <= static_cast<int>(DType::q6_k); ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(parse_dtype(name(dtype)), dtype);
  }
  EXPECT_THROW(parse_dtype("IQ2_XXS"), ModelFormatError);
}

// Every half, and around the middle of each with the next.
TEST(Half, is_rounded_to_the_nearest_and_ties_to_even) {
  for (uint32_t half = 0; half < 0x7c00; ++half) {
    const float value = half_to_float(static_cast<uint16_t>(half));
    EXPECT_EQ(to_f16(value).bits, half);
    EXPECT_EQ(to_f16(-value).bits, half | 0x8000);
    const float next = half == 0x7bff ? 65536 : half_to_float(static_cast<uint16_t>(half + 1));
    const float middle = (value + next) / 2;
    EXPECT_EQ(to_f16(std::nextafter(middle, 0.0f)).bits, half);
    EXPECT_EQ(to_f16(middle).bits, half + half % 2);
    EXPECT_EQ(to_f16(std::nextafter(middle, next)).bits, half + 1);
  }
  EXPECT_EQ(to_f16(1e30f).bits, 0x7c00);
  EXPECT_EQ(to_f16(-INFINITY).bits, 0xfc00);
  EXPECT_TRUE(std::isnan(half_to_float(to_f16(NAN).bits)));
}

}  // namespace
}  // namespace medusa
