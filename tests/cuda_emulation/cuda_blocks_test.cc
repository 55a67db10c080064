// Weights that stay in GGUF's blocks, against the same weights widened before.
#include "device_case.h"
#include "medusa/error.h"

namespace medusa {
namespace {

class CudaBlocksTest : public DeviceTest {
 protected:
  const std::shared_ptr<Backend> keeping = backend;
  const std::shared_ptr<Backend> widening =
      make_cuda_backend({.weight_format = WeightFormat::widened}, 0);
};
MEDUSA_FOR_EVERY_SCHEDULE(CudaBlocksTest);

// Random codes under scales of ordinary size.
struct Blocks {
  Blocks(DType dtype, int64_t rows, int64_t cols, uint32_t seed) : bytes(size(dtype, rows, cols)) {
    std::mt19937 random(seed);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    for (size_t block = 0; block < bytes.size(); block += block_bytes(dtype)) {
      bytes[block + 1] = static_cast<uint8_t>(0x20 + random() % 8);  // of an f16
      if (dtype == DType::q4_1) bytes[block + 3] = static_cast<uint8_t>(0xa0 + random() % 8);
    }
    tensor = {bytes.data(), bytes.size(), dtype, {rows, cols}};
  }
  static size_t size(DType dtype, int64_t rows, int64_t cols) {
    return static_cast<size_t>(rows * cols / block_elements(dtype)) * block_bytes(dtype);
  }
  std::vector<uint8_t> bytes;
  HostTensor tensor;
};

Matrix product(Backend& backend, const Matrix& x, const Weight& weight) {
  const Resident in(backend, x),
      out(backend, Matrix(DType::f32, x.view().rows, weight.out_features));
  ops::linear(backend, out, in, weight, Epilogue::store);
  return out.fetch();
}

constexpr DType kFormats[] = {DType::q8_0, DType::q4_0, DType::q4_1};

TEST_P(CudaBlocksTest, products_have_the_bits_of_widened_weights) {
  for (const DType dtype : kFormats) {
    for (const auto& [k, n] : {std::pair{32, 33}, {96, 16}, {576, 130}, {1056, 40}}) {
      const Blocks blocks(dtype, n, k, 5);
      const WeightSource source{.parts = {&blocks.tensor}, .name = "w"};
      const Weight kept = keeping->prepare_weight(source), wide = widening->prepare_weight(source);
      EXPECT_EQ(kept.segments[0].dtype, dtype);
      EXPECT_LT(kept.bytes() * 3, wide.bytes() * 2);
      for (const int64_t rows : {1, 9, 20, 64}) {
        const Matrix x = random_matrix(DType::bf16, rows, k, 6);
        EXPECT_TRUE(product(*keeping, x, kept).same(product(*widening, x, wide)))
            << name(dtype) << ", " << rows << " x " << k << " x " << n;
      }
    }
  }
}

// Without logits in memory, too.
TEST_P(CudaBlocksTest, best_ids_are_those_of_widened_weights) {
  for (const DType dtype : kFormats) {
    const Blocks blocks(dtype, 130, 96, 5);
    const WeightSource source{.parts = {&blocks.tensor}, .name = "w"};
    for (const int64_t rows : {1, 9, 20, 64}) {
      const Matrix x = random_matrix(DType::bf16, rows, 96, 6);
      const auto best = [&](Backend& of) {
        const Weight weight = of.prepare_weight(source);
        const Resident in(of, x), values(of, Matrix(DType::f32, rows, 5)),
            ids(of, Matrix(DType::i32, rows, 5));
        ops::linear_top_k(of, values, ids, in, {&weight, 1});
        return std::pair(values.fetch(), ids.fetch());
      };
      const auto kept = best(*keeping), wide = best(*widening);
      EXPECT_TRUE(kept.first.same(wide.first)) << name(dtype) << ", " << rows;
      EXPECT_TRUE(kept.second.same(wide.second)) << name(dtype) << ", " << rows;
    }
  }
}

TEST_P(CudaBlocksTest, gate_and_up_are_interleaved) {
  for (const DType dtype : kFormats) {
    const Blocks gate(dtype, 48, 64, 7), up(dtype, 48, 64, 8);
    const WeightSource source{
        .parts = {&gate.tensor, &up.tensor}, .pack = Pack::interleave, .name = "gate_up"};
    for (const int64_t rows : {1, 3, 200}) {
      const Matrix x = random_matrix(DType::bf16, rows, 64, 9);
      const auto run = [&](Backend& on) {
        const Resident in(on, x), out(on, Matrix(DType::bf16, rows, 48));
        const Weight weight = on.prepare_weight(source);
        ops::linear(on, out, in, weight, Epilogue::silu_mul);
        return out.fetch();
      };
      EXPECT_TRUE(run(*keeping).same(run(*widening))) << name(dtype) << ", " << rows;
    }
  }
}

TEST_P(CudaBlocksTest, rows_are_embedded_as_dequantised) {
  const std::vector<int32_t> ids = {36, 0, 17};
  for (const DType dtype : kFormats) {
    const Blocks blocks(dtype, 37, 96, 10);
    const Weight table = keeping->prepare_weight({.parts = {&blocks.tensor}, .name = "table"});
    const Resident out(*keeping, Matrix(DType::f32, 3, 96));
    ops::embed(*keeping, out, table, ids);
    const Matrix found = out.fetch();
    std::vector<float> all(37 * 96);
    dequantize(all.data(), blocks.bytes.data(), dtype, 37 * 96);
    for (int64_t r = 0; r < 3; ++r) {
      for (int64_t c = 0; c < 96; ++c) {
        ASSERT_EQ(found.at(r, c), all[static_cast<size_t>(ids[static_cast<size_t>(r)] * 96 + c)]);
      }
    }
  }
}

TEST_P(CudaBlocksTest, parts_of_different_types_are_widened) {
  const Blocks q(DType::q4_0, 16, 64, 11), v(DType::q8_0, 16, 64, 12);
  const Weight weight = keeping->prepare_weight({.parts = {&q.tensor, &v.tensor}, .name = "qkv"});
  EXPECT_EQ(weight.segments[0].dtype, DType::bf16);
}

TEST_P(CudaBlocksTest, factors_that_are_not_finite_are_refused) {
  for (const DType dtype : kFormats) {
    Blocks blocks(dtype, 40, 64, 13);
    uint8_t* scale = &blocks.bytes[(33 * 2 + 1) * block_bytes(dtype)];  // of row 33
    scale[0] = 0;
    scale[1] = 0x7c;
    try {
      keeping->prepare_weight({.parts = {&blocks.tensor}, .name = "w"});
      FAIL() << name(dtype);
    } catch (const ModelFormatError& error) {
      EXPECT_STREQ(error.what(), "w: expected finite scales, found NaN or infinity in row 33");
    }
  }
}

}  // namespace
}  // namespace medusa
