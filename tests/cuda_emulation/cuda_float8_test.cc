// F8_E4M3 weights, against the same weights widened before and against the file's numbers.
#include <cstdlib>
#include <string>

#include "device_case.h"
#include "float8_case.h"
#include "medusa/error.h"

namespace medusa {
namespace {

// With portable kernels, which F8_E4M3 has alone: those for 9.0 may split k and add otherwise.
std::shared_ptr<Backend> make_widening() {
  constexpr const char* kKernels = "MEDUSA_CUDA_KERNELS";
  const char* value = std::getenv(kKernels);
  const std::string before = value == nullptr ? "" : value;
  setenv(kKernels, "portable", 1);
  auto made = make_cuda_backend({.weight_format = WeightFormat::widened}, 0);
  setenv(kKernels, before.c_str(), 1);  // empty is as if unset
  return made;
}

class CudaFloat8Test : public DeviceTest {
 protected:
  const std::shared_ptr<Backend> keeping = backend;
  const std::shared_ptr<Backend> widening = make_widening();
};
MEDUSA_FOR_EVERY_SCHEDULE(CudaFloat8Test);

Matrix product(Backend& backend, const Matrix& x, const Weight& weight) {
  const Resident in(backend, x),
      out(backend, Matrix(DType::f32, x.view().rows, weight.out_features));
  ops::linear(backend, out, in, weight, Epilogue::store);
  return out.fetch();
}

TEST_P(CudaFloat8Test, products_have_the_bits_of_widened_weights) {
  for (const auto& [n, k, height, width] : kFloat8Shapes) {
    const Float8Matrix w(n, k, height, width, 5);
    const WeightSource source{.parts = {&w.tensor}, .name = "w"};
    const Weight kept = keeping->prepare_weight(source), wide = widening->prepare_weight(source);
    EXPECT_EQ(kept.segments[0].dtype, DType::f8_e4m3);
    EXPECT_EQ(kept.bytes(), wide.bytes() / 2 + static_cast<size_t>((n + 31) / 32 * 32) *
                                                   static_cast<size_t>((k + 127) / 128) * 4);
    for (const int64_t rows : {1, 9, 20, 64}) {
      const Matrix x = random_matrix(DType::bf16, rows, k, 6);
      EXPECT_TRUE(product(*keeping, x, kept).same(product(*widening, x, wide)))
          << rows << " x " << k << " x " << n;
    }
  }
}

TEST_P(CudaFloat8Test, products_are_near_those_of_exact_arithmetic) {
  for (const auto& [n, k, height, width] : kFloat8Shapes) {
    const Float8Matrix w(n, k, height, width, 7);
    const Matrix x = random_matrix(DType::bf16, 3, k, 8);
    const Matrix out =
        product(*keeping, x, keeping->prepare_weight({.parts = {&w.tensor}, .name = "w"}));
    expect_exact_products(out, x, w);
  }
}

TEST_P(CudaFloat8Test, a_row_is_the_same_alone_and_among_others) {
  const Float8Matrix w(72, 1312, 128, 128, 9);
  const Weight weight = keeping->prepare_weight({.parts = {&w.tensor}, .name = "w"});
  const Matrix x = random_matrix(DType::bf16, 70, 1312, 10), all = product(*keeping, x, weight);
  for (const int64_t rows : {1, 2, 9, 33}) {
    Matrix some(DType::bf16, rows, 1312);
    for (int64_t r = 0; r < rows; ++r) some.copy_row(r, x, 69 - r);
    const Matrix out = product(*keeping, some, weight);
    for (int64_t r = 0; r < rows; ++r) ASSERT_TRUE(out.same_row(r, all, 69 - r)) << rows;
  }
}

// Without logits in memory, too.
TEST_P(CudaFloat8Test, best_ids_are_those_of_widened_weights) {
  const Float8Matrix w(130, 160, 128, 128, 11);
  for (const int64_t rows : {1, 20}) {
    const Matrix x = random_matrix(DType::bf16, rows, 160, 12);
    const auto best = [&](Backend& of) {
      const Weight weight = of.prepare_weight({.parts = {&w.tensor}, .name = "w"});
      const Resident in(of, x), values(of, Matrix(DType::f32, rows, 5)),
          ids(of, Matrix(DType::i32, rows, 5));
      ops::linear_top_k(of, values, ids, in, {&weight, 1});
      return std::pair(values.fetch(), ids.fetch());
    };
    const auto kept = best(*keeping), wide = best(*widening);
    EXPECT_TRUE(kept.first.same(wide.first)) << rows;
    EXPECT_TRUE(kept.second.same(wide.second)) << rows;
  }
}

TEST_P(CudaFloat8Test, gate_and_up_are_interleaved) {
  const Float8Matrix gate(48, 160, 16, 128, 13), up(48, 160, 1, 160, 14);
  for (const int64_t rows : {1, 70}) {
    const Matrix x = random_matrix(DType::bf16, rows, 160, 15);
    const auto run = [&](Backend& on) {
      const Resident in(on, x), out(on, Matrix(DType::bf16, rows, 48));
      const Weight weight = on.prepare_weight(
          {.parts = {&gate.tensor, &up.tensor}, .pack = Pack::interleave, .name = "gate_up"});
      ops::linear(on, out, in, weight, Epilogue::silu_mul);
      return out.fetch();
    };
    EXPECT_TRUE(run(*keeping).same(run(*widening))) << rows;
  }
}

TEST_P(CudaFloat8Test, rows_are_embedded_and_packed_again_as_products_see_them) {
  const std::vector<int32_t> ids = {36, 0, 17};
  const Float8Matrix w(37, 160, 16, 128, 16);
  const Weight table = keeping->prepare_weight({.parts = {&w.tensor}, .name = "table"});
  const Resident out(*keeping, Matrix(DType::f32, 3, 160));
  ops::embed(*keeping, out, table, ids);
  const Matrix found = out.fetch();
  for (int64_t r = 0; r < 3; ++r) {
    for (int64_t c = 0; c < 160; ++c) {
      ASSERT_EQ(found.at(r, c), w.at(ids[static_cast<size_t>(r)], c));
    }
  }
  const Weight some = keeping->prepare_weight({.packed = &table, .rows = ids, .name = "some"});
  const Matrix x = random_matrix(DType::bf16, 2, 160, 17), all = product(*keeping, x, table);
  const Matrix part = product(*keeping, x, some);
  for (int64_t c = 0; c < 3; ++c) {
    EXPECT_EQ(part.at(1, c), all.at(1, ids[static_cast<size_t>(c)]));
  }
}

TEST_P(CudaFloat8Test, codes_beside_other_weights_are_widened) {
  const Float8Matrix q(32, 64, 32, 64, 18);
  const Matrix v = random_matrix(DType::f32, 32, 64, 19);
  const HostTensor wide = host_tensor(v);
  const Weight weight = keeping->prepare_weight({.parts = {&q.tensor, &wide}, .name = "qv"});
  EXPECT_EQ(weight.segments[0].dtype, DType::bf16);
}

TEST_P(CudaFloat8Test, values_that_are_not_finite_are_refused) {
  Float8Matrix w(40, 64, 1, 64, 20);
  const auto refused = [&] {
    try {
      keeping->prepare_weight({.parts = {&w.tensor}, .name = "w"});
    } catch (const ModelFormatError& error) {
      return std::string(error.what());
    }
    return std::string("nothing");
  };
  const std::string expected = "w: expected finite weights, found NaN or infinity in row 33";
  w.codes[33 * 64 + 63] = 0xff;
  EXPECT_EQ(refused(), expected);
  w.codes[33 * 64 + 63] = 0x7e;
  w.scales[33] = 1e36f;
  EXPECT_EQ(refused(), expected);
}

}  // namespace
}  // namespace medusa
