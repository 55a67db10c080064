// F8_E4M3 weights: kept as codes and scales, multiplied as the bf16 weights they round to.
#include "float8_case.h"
#include "medusa/error.h"
#include "tensor/float8.h"

namespace medusa {
namespace {

class Float8LinearTest : public testing::TestWithParam<KernelCase> {
 protected:
  const std::shared_ptr<Backend> keeping = GetParam().backend(2);
  const std::shared_ptr<Backend> widening = make_cpu_backend(
      *GetParam().kernels, {.weight_format = WeightFormat::widened, .num_threads = 2});

  static Matrix product(Backend& backend, const Weight& weight, const Matrix& x) {
    Matrix out(DType::f32, x.view().rows, weight.out_features);
    ops::linear(backend, out, x, weight, Epilogue::store);
    EXPECT_TRUE(out.guards_intact());
    return out;
  }
  // What packing says.
  std::string refusal(const HostTensor& tensor) {
    try {
      keeping->prepare_weight({.parts = {&tensor}, .name = "w"});
    } catch (const ModelFormatError& error) {
      return error.what();
    }
    return "nothing";
  }
};

std::vector<KernelCase> bf16_cases() {
  std::vector<KernelCase> cases;
  for (const KernelCase& c : all_kernel_cases()) {
    if (c.compute == ComputeType::bfloat16) cases.push_back(c);
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(every_isa, Float8LinearTest, testing::ValuesIn(bf16_cases()), case_name);

TEST(Float8, codes_mean_what_the_format_says) {
  for (int code = 0; code < 256; ++code) {
    const float found = float8_to_float(static_cast<uint8_t>(code));
    if ((code & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(found)) << code;
    } else {
      EXPECT_EQ(found, float8_number(static_cast<uint8_t>(code))) << code;
    }
  }
  EXPECT_EQ(float8_to_float(0x7e), 448.0f);
  EXPECT_EQ(float8_to_float(0x01), 0x1p-9f);
}

TEST_P(Float8LinearTest, holds_a_byte_a_weight_and_the_values_of_the_file) {
  for (const auto& [n, k, height, width] : kFloat8Shapes) {
    const Float8Matrix w(n, k, height, width, 1);
    const Weight weight = keeping->prepare_weight({.parts = {&w.tensor}, .name = "w"});
    ASSERT_EQ(weight.segments.size(), 1u);
    EXPECT_EQ(weight.segments[0].dtype, DType::f8_e4m3);
    const int64_t padded = (n + 31) / 32 * 32;
    EXPECT_EQ(weight.bytes(), static_cast<size_t>(padded * (k + (k + 127) / 128 * 4)));
    std::vector<int32_t> ids(static_cast<size_t>(n));
    for (int32_t i = 0; i < n; ++i) ids[static_cast<size_t>(i)] = i;
    const Matrix rows(DType::f32, n, k);
    ops::embed(*keeping, rows, weight, ids);
    for (int64_t r = 0; r < n; ++r) {
      for (int64_t c = 0; c < k; ++c) ASSERT_EQ(rows.at(r, c), w.at(r, c)) << r << ", " << c;
    }
  }
}

TEST_P(Float8LinearTest, products_have_the_bits_of_widened_weights) {
  for (const auto& [n, k, height, width] : kFloat8Shapes) {
    const Float8Matrix w(n, k, height, width, 2);
    const WeightSource source{.parts = {&w.tensor}, .name = "w"};
    const Weight kept = keeping->prepare_weight(source), wide = widening->prepare_weight(source);
    EXPECT_EQ(wide.segments[0].dtype, DType::bf16);
    for (const int64_t rows : {1, 2, 7, 13, 33, 300}) {
      const Matrix x = random_matrix(DType::bf16, rows, k, 3);
      EXPECT_TRUE(product(*keeping, kept, x).same(product(*widening, wide, x)))
          << rows << " x " << k << " x " << n;
    }
  }
}

TEST_P(Float8LinearTest, products_are_near_those_of_exact_arithmetic) {
  for (const auto& [n, k, height, width] : kFloat8Shapes) {
    const Float8Matrix w(n, k, height, width, 4);
    const Weight weight = keeping->prepare_weight({.parts = {&w.tensor}, .name = "w"});
    const Matrix x = random_matrix(DType::bf16, 3, k, 5), out = product(*keeping, weight, x);
    expect_exact_products(out, x, w);
  }
}

TEST_P(Float8LinearTest, a_row_is_the_same_alone_and_among_others) {
  const Float8Matrix w(104, 1312, 128, 128, 6);
  const Weight weight = keeping->prepare_weight({.parts = {&w.tensor}, .name = "w"});
  const Matrix x = random_matrix(DType::bf16, 40, 1312, 7), all = product(*keeping, weight, x);
  const auto alone = GetParam().backend(1);
  for (int64_t rows = 1; rows <= 33; rows += rows < 14 ? 1 : 6) {
    Matrix some(DType::bf16, rows, 1312);
    for (int64_t r = 0; r < rows; ++r) some.copy_row(r, x, 39 - r);
    const Matrix out = product(*alone, weight, some);
    for (int64_t r = 0; r < rows; ++r) ASSERT_TRUE(out.same_row(r, all, 39 - r)) << rows;
  }
}

TEST_P(Float8LinearTest, parts_are_packed_together) {
  const Float8Matrix gate(48, 160, 16, 128, 8), up(48, 160, 1, 160, 9);
  const Matrix x = random_matrix(DType::bf16, 9, 160, 10);
  const auto run = [&](Backend& backend) {
    const Weight both = backend.prepare_weight(
        {.parts = {&gate.tensor, &up.tensor}, .pack = Pack::interleave, .name = "gate_up"});
    Matrix out(DType::bf16, 9, 48);
    ops::linear(backend, out, x, both, Epilogue::silu_mul);
    return out;
  };
  EXPECT_TRUE(run(*keeping).same(run(*widening)));
  const Float8Matrix q(64, 160, 64, 160, 11);
  const Matrix v = random_matrix(DType::f32, 32, 160, 12);
  const HostTensor wide = host_tensor(v);
  const WeightSource mixed{.parts = {&q.tensor, &wide}, .name = "qv"};
  const Weight kept = keeping->prepare_weight(mixed);
  ASSERT_EQ(kept.segments.size(), 2u);
  EXPECT_EQ(kept.segments[0].dtype, DType::f8_e4m3);
  EXPECT_EQ(kept.segments[1].dtype, DType::bf16);
  EXPECT_TRUE(
      product(*keeping, kept, x).same(product(*widening, widening->prepare_weight(mixed), x)));
}

TEST_P(Float8LinearTest, rows_of_a_packed_weight_are_its_own) {
  const Float8Matrix w(80, 256, 128, 128, 13);
  const Weight whole = keeping->prepare_weight({.parts = {&w.tensor}, .name = "w"});
  const std::vector<int32_t> wanted = {5, 79, 0, 33, 5};
  const Weight some = keeping->prepare_weight({.packed = &whole, .rows = wanted, .name = "w"});
  const Weight read = keeping->prepare_weight({.parts = {&w.tensor}, .rows = wanted, .name = "w"});
  const Matrix x = random_matrix(DType::bf16, 2, 256, 14), all = product(*keeping, whole, x);
  const Matrix out = product(*keeping, some, x);
  for (int64_t c = 0; c < 5; ++c) {
    EXPECT_EQ(out.at(1, c), all.at(1, wanted[static_cast<size_t>(c)]));
  }
  EXPECT_TRUE(out.same(product(*keeping, read, x)));
}

TEST_P(Float8LinearTest, what_has_no_meaning_is_refused) {
  const std::string not_finite = "w: expected finite weights, found NaN or infinity in row 33";
  Float8Matrix w(40, 160, 1, 160, 15);
  for (const uint8_t nan : {0x7f, 0xff}) {
    w.codes[33 * 160 + 159] = nan;
    EXPECT_EQ(refusal(w.tensor), not_finite);
  }
  w.codes[33 * 160 + 159] = 0x7e;
  w.scales[33] = 1e36f;  // 448 times it is no number of bf16
  EXPECT_EQ(refusal(w.tensor), not_finite);
  for (const float scale : {0.0f, -1.0f, INFINITY, NAN}) {
    w.scales[33] = scale;
    EXPECT_EQ(refusal(w.tensor), "w: expected positive finite scales, found another");
  }
  HostTensor t = w.tensor;
  t.scales = {w.scales.data(), 1, 64};
  EXPECT_NE(refusal(t).find("a multiple of 128 columns"), std::string::npos) << refusal(t);
  t.scales = {};
  EXPECT_EQ(refusal(t), "w: expected scales for F8_E4M3, found none");
  t = w.tensor;
  t.bytes -= 1;
  EXPECT_NE(refusal(t).find("expected 6400 bytes"), std::string::npos) << refusal(t);
}

}  // namespace
}  // namespace medusa
