#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <span>

#include "kernel_case.h"
#include "medusa/error.h"
#include "tensor/block_codes.h"

namespace medusa {
namespace {

constexpr DType kFormats[] = {DType::q8_0, DType::q4_0, DType::q4_1, DType::q5_0,
                              DType::q5_1, DType::q4_k, DType::q5_k, DType::q6_k};

struct BlockCase {
  const cpu::KernelTable* kernels;
  DType format;

  std::shared_ptr<Backend> backend(int threads = 1) const {
    return make_cpu_backend(*kernels, {.num_threads = threads});
  }
};

std::vector<BlockCase> all_cases() {
  std::vector<BlockCase> cases;
  for (const KernelCase& c : all_kernel_cases()) {
    if (c.compute == ComputeType::float32) continue;
    for (DType format : kFormats) cases.push_back({c.kernels, format});
  }
  return cases;
}

std::string block_case_name(const testing::TestParamInfo<BlockCase>& info) {
  return std::string(info.param.kernels->name) + "_" + std::string(name(info.param.format));
}

// Rows of random blocks, in a format's own bytes and widened.
struct Blocks {
  DType format;
  int64_t rows, cols;
  std::vector<uint8_t> bytes;
  std::vector<float> values;

  Blocks(DType dtype, int64_t n, int64_t k, uint32_t seed) : format(dtype), rows(n), cols(k) {
    const size_t block = block_bytes(dtype);
    bytes.resize(static_cast<size_t>(n * k / block_elements(dtype)) * block);
    std::mt19937 random(seed);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    for (size_t at = 0; at < bytes.size(); at += block) {
      const size_t scale = dtype == DType::q6_k ? 209 : 1;
      bytes[at + scale] = static_cast<uint8_t>(0x10 | (random() & 0x87));  // about 1/1000, signed
      if (block_format(dtype)->minimum) bytes[at + 3] = static_cast<uint8_t>(0x10 | (random() & 7));
    }
    values.resize(static_cast<size_t>(n * k));
    dequantize(values.data(), bytes.data(), dtype, n * k);
  }
  // Every byte but those of the f16 fields.
  void fill_codes(uint8_t fill) {
    const size_t block = block_bytes(format);
    const size_t first = format == DType::q6_k ? 0 : block_format(format)->minimum ? 4 : 2;
    const size_t last = format == DType::q6_k ? block - 2 : block;
    for (size_t at = 0; at < bytes.size(); at += block) {
      std::fill(bytes.data() + at + first, bytes.data() + at + last, fill);
    }
    dequantize(values.data(), bytes.data(), format, rows * cols);
  }
  HostTensor tensor() const { return {bytes.data(), bytes.size(), format, {rows, cols}}; }
  float at(int64_t row, int64_t col) const { return values[static_cast<size_t>(row * cols + col)]; }
};

// What rounding to steps of largest / most leaves of a number, squared, in f32.
float squared_error(float x, float most, float largest) {
  const float left = x - std::nearbyint(x * (most / largest)) * (largest / most);
  return left * left;
}

// The code of the group's largest element: that of two which leaves less, halves folded together.
float most_code(std::span<const float> group, float largest) {
  std::vector<float> excess;
  for (const float x : group) {
    excess.push_back(squared_error(x, 127, largest) - squared_error(x, 125, largest));
  }
  for (size_t half = group.size() / 2; half > 0; half /= 2) {
    for (size_t i = 0; i < half; ++i) excess[i] += excess[i + half];
  }
  return excess[0] > 0 ? 125.0f : 127.0f;
}

// A row as products see it: groups of 32, to 8 bits.
std::vector<double> rounded(const Matrix& x, int64_t row) {
  std::vector<float> values;
  for (int64_t i = 0; i < x.view().cols; ++i) values.push_back(static_cast<float>(x.at(row, i)));
  std::vector<double> out(values.size());
  for (size_t first = 0; first < out.size(); first += 32) {
    const std::span group = std::span(values).subspan(first, 32);
    float largest = 0;
    for (const float value : group) largest = std::max(largest, std::abs(value));
    if (largest == 0) continue;
    const float most = most_code(group, largest), scale = largest / most, inverse = most / largest;
    for (size_t i = 0; i < group.size(); ++i) {
      out[first + i] = double{scale} * std::nearbyint(group[i] * inverse);
    }
  }
  return out;
}

class BlockLinearTest : public testing::TestWithParam<BlockCase> {
 protected:
  Matrix product(Backend& backend, const Weight& weight, const Matrix& x) {
    Matrix out(DType::f32, x.view().rows, weight.out_features);
    ops::linear(backend, out, x, weight, Epilogue::store);
    EXPECT_TRUE(out.guards_intact());
    return out;
  }
};
INSTANTIATE_TEST_SUITE_P(every_isa, BlockLinearTest, testing::ValuesIn(all_cases()),
                         block_case_name);

TEST_P(BlockLinearTest, keeps_the_values_of_the_file) {
  const auto backend = GetParam().backend(2);
  const Blocks blocks(GetParam().format, 70, 512, 1);
  const HostTensor tensor = blocks.tensor();
  const Weight weight = backend->prepare_weight({.parts = {&tensor}, .name = "w"});
  ASSERT_EQ(weight.segments.size(), 1u);
  EXPECT_EQ(weight.segments[0].dtype, GetParam().format);
  std::vector<int32_t> ids(70);
  for (int32_t i = 0; i < 70; ++i) ids[static_cast<size_t>(i)] = i;
  const Matrix rows(DType::f32, 70, 512);
  ops::embed(*backend, rows, weight, ids);
  for (int64_t r = 0; r < 70; ++r) {
    for (int64_t c = 0; c < 512; ++c) {
      ASSERT_EQ(static_cast<float>(rows.at(r, c)), blocks.at(r, c)) << r << ", " << c;
    }
  }
}

TEST_P(BlockLinearTest, multiplies_rounded_rows) {
  const auto backend = GetParam().backend(2);
  for (const auto& [rows, k, n] : {std::tuple{1, 256, 33}, {3, 512, 64}, {13, 2304, 40}}) {
    const Blocks blocks(GetParam().format, n, k, 2);
    const HostTensor tensor = blocks.tensor();
    const Weight weight = backend->prepare_weight({.parts = {&tensor}, .name = "w"});
    Matrix x = random_matrix(DType::bf16, rows, k, 3);
    for (int64_t c = 32; c < 64; ++c) x.set(0, c, 0);  // a group of zeros
    const Matrix out = product(*backend, weight, x);
    double worst = 0;
    for (int64_t r = 0; r < rows; ++r) {
      const std::vector<double> row = rounded(x, r);
      for (int64_t c = 0; c < n; ++c) {
        double expected = 0, size = 0;
        for (int64_t i = 0; i < k; ++i) {
          expected += row[static_cast<size_t>(i)] * blocks.at(c, i);
          size += std::abs(row[static_cast<size_t>(i)] * blocks.at(c, i));
        }
        worst = std::max(worst, std::abs(out.at(r, c) - expected) / size);
      }
    }
    EXPECT_LT(worst, 2e-6) << rows << " x " << k << " x " << n;
  }
}

// Nothing saturates: the largest codes of either sign meet the largest bytes of either sign.
TEST_P(BlockLinearTest, sums_extreme_codes_exactly) {
  const auto backend = GetParam().backend();
  Matrix x(DType::bf16, 3, 256);
  for (int64_t i = 0; i < 256; ++i) {
    x.set(0, i, 1);
    x.set(1, i, -1);
    x.set(2, i, i % 4 < 2 ? 1.0f : -1.0f);
  }
  for (const uint8_t fill : {0x00, 0x7f, 0x80, 0xff}) {
    Blocks blocks(GetParam().format, 32, 256, 12);
    blocks.fill_codes(fill);
    const HostTensor tensor = blocks.tensor();
    const Matrix out = product(*backend, backend->prepare_weight({.parts = {&tensor}}), x);
    for (int64_t r = 0; r < 3; ++r) {
      const std::vector<double> row = rounded(x, r);
      double expected = 0, size = 0;
      for (int64_t i = 0; i < 256; ++i) {
        expected += row[static_cast<size_t>(i)] * blocks.at(5, i);
        size += std::abs(row[static_cast<size_t>(i)] * blocks.at(5, i));
      }
      EXPECT_NEAR(out.at(r, 5), expected, 2e-6 * size) << int{fill};
    }
  }
}

TEST_P(BlockLinearTest, row_is_the_same_alone_among_others_and_on_every_isa) {
  const auto backend = GetParam().backend(2);
  const int64_t k = 4608, n = 104;
  const Blocks blocks(GetParam().format, n, k, 4);
  const HostTensor tensor = blocks.tensor();
  const WeightSource source{.parts = {&tensor}, .name = "w"};
  const Weight weight = backend->prepare_weight(source);
  const Matrix x = random_matrix(DType::bf16, 40, k, 5);
  const Matrix all = product(*backend, weight, x);
  for (int64_t rows = 1; rows <= 33; rows += rows < 14 ? 1 : 6) {
    Matrix some(DType::bf16, rows, k);
    for (int64_t r = 0; r < rows; ++r) some.copy_row(r, x, 39 - r);
    const Matrix out = product(*backend, weight, some);
    for (int64_t r = 0; r < rows; ++r) ASSERT_TRUE(out.same_row(r, all, 39 - r)) << rows;
  }
  const auto generic = make_cpu_backend(cpu::Isa::generic, {.num_threads = 3});
  EXPECT_TRUE(product(*generic, generic->prepare_weight(source), x).same(all));
}

TEST_P(BlockLinearTest, selects_rows_of_a_packed_weight) {
  const auto backend = GetParam().backend();
  const Blocks blocks(GetParam().format, 80, 256, 6);
  const HostTensor tensor = blocks.tensor();
  const Weight whole = backend->prepare_weight({.parts = {&tensor}, .name = "w"});
  std::vector<int32_t> wanted;
  for (int32_t i = 0; i < 35; ++i) wanted.push_back((i * 37 + 5) % 80);
  const Weight some = backend->prepare_weight({.packed = &whole, .rows = wanted, .name = "w"});
  EXPECT_EQ(some.segments[0].dtype, GetParam().format);
  const Matrix x = random_matrix(DType::bf16, 2, 256, 7);
  const Matrix all = product(*backend, whole, x), out = product(*backend, some, x);
  for (int64_t c = 0; c < 35; ++c) {
    EXPECT_EQ(out.at(1, c), all.at(1, wanted[static_cast<size_t>(c)]));
  }
  const std::vector<int32_t> outside = {80};
  EXPECT_THROW(backend->prepare_weight({.packed = &whole, .rows = outside}), ModelFormatError);
  EXPECT_THROW(backend->prepare_weight({.packed = &whole}), InvalidArgument);
}

TEST_P(BlockLinearTest, interleaves_gate_and_up) {
  const auto backend = GetParam().backend();
  const Blocks gate(GetParam().format, 48, 256, 8), up(GetParam().format, 48, 256, 9);
  const HostTensor g = gate.tensor(), u = up.tensor();
  const Weight both =
      backend->prepare_weight({.parts = {&g, &u}, .pack = Pack::interleave, .name = "gate_up"});
  const Weight one = backend->prepare_weight({.parts = {&g}, .name = "gate"});
  const Weight other = backend->prepare_weight({.parts = {&u}, .name = "up"});
  const Matrix x = random_matrix(DType::bf16, 9, 256, 10);
  const Matrix out(DType::bf16, 9, 48);
  ops::linear(*backend, out, x, both, Epilogue::silu_mul);
  const Matrix a = product(*backend, one, x), b = product(*backend, other, x);
  for (int64_t r = 0; r < 9; ++r) {
    for (int64_t c = 0; c < 48; ++c) {
      const double expected = a.at(r, c) / (1 + std::exp(-a.at(r, c))) * b.at(r, c);
      EXPECT_NEAR(out.at(r, c), expected, 1e-6 + std::abs(expected) / 256);
    }
  }
}

TEST_P(BlockLinearTest, refuses_scales_that_are_not_finite) {
  const auto backend = GetParam().backend(2);
  Blocks blocks(GetParam().format, 40, 256, 11);
  blocks.bytes[GetParam().format == DType::q6_k ? 209 : 1] = 0x7c;
  const HostTensor tensor = blocks.tensor();
  EXPECT_THROW(backend->prepare_weight({.parts = {&tensor}, .name = "w"}), ModelFormatError);
}

// Every kind of part, one after another or in turns: whole panels keep their type.
TEST(MixedWeights, keep_the_type_of_each_part) {
  const auto backend = make_cpu_backend({.num_threads = 2});
  const Blocks a(DType::q4_1, 96, 256, 12), b(DType::q6_k, 32, 256, 13),
      c(DType::q8_0, 40, 256, 14);
  const Matrix d = random_matrix(DType::f32, 32, 256, 15);
  const HostTensor ta = a.tensor(), tb = b.tensor(), tc = c.tensor(), td = host_tensor(d);
  const Weight mixed = backend->prepare_weight({.parts = {&ta, &tb, &td, &tc}, .name = "qkv"});
  ASSERT_EQ(mixed.segments.size(), 4u);
  EXPECT_EQ(mixed.segments[2].dtype, DType::bf16);
  const Matrix x = random_matrix(DType::bf16, 7, 256, 16);
  const Matrix out(DType::f32, 7, 200);
  ops::linear(*backend, out, x, mixed, Epilogue::store);
  int64_t column = 0;
  for (const HostTensor* part : {&ta, &tb, &td, &tc}) {
    const Weight alone = backend->prepare_weight({.parts = {part}, .name = "part"});
    const Matrix expected(DType::f32, 7, part->shape[0]);
    ops::linear(*backend, expected, x, alone, Epilogue::store);
    for (int64_t r = 0; r < 7; ++r) {
      for (int64_t i = 0; i < part->shape[0]; ++i) {
        ASSERT_EQ(out.at(r, column + i), expected.at(r, i));
      }
    }
    column += part->shape[0];
  }
}

TEST(MixedWeights, widen_what_does_not_fit) {
  const auto backend = make_cpu_backend({.num_threads = 1});
  const Blocks a(DType::q4_1, 48, 256, 17), b(DType::q8_0, 48, 256, 18);
  const HostTensor ta = a.tensor(), tb = b.tensor();
  for (const Pack pack : {Pack::concatenate, Pack::interleave}) {
    const Weight weight =
        backend->prepare_weight({.parts = {&ta, &tb}, .pack = pack, .name = "both"});
    ASSERT_EQ(weight.segments.size(), 1u);
    EXPECT_EQ(weight.segments[0].dtype, DType::bf16);
  }
  const auto widening = make_cpu_backend({.weight_format = WeightFormat::widened});
  EXPECT_EQ(widening->prepare_weight({.parts = {&ta}}).segments[0].dtype, DType::bf16);
}

}  // namespace
}  // namespace medusa
