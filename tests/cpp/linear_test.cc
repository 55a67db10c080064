#include <gtest/gtest.h>

#include <cmath>

#include "linear_case.h"
#include "medusa/error.h"

namespace medusa {
namespace {

class LinearTest : public testing::TestWithParam<KernelCase> {};
MEDUSA_FOR_EVERY_ISA(LinearTest);

struct Shape {
  int64_t rows, k, n;
};

TEST_P(LinearTest, stores_products_of_any_shape) {
  const auto backend = GetParam().backend(2);
  for (const Shape s : {Shape{1, 32, 1}, Shape{2, 64, 15}, Shape{3, 96, 33}, Shape{7, 576, 100},
                        Shape{13, 2112, 48}, Shape{64, 160, 130}, Shape{200, 64, 80},
                        Shape{300, 32, 17}, Shape{1, 4160, 96}}) {
    const Layer layer(*backend, s.n, s.k, 1);
    const Matrix x = random_matrix(GetParam().dtype(), s.rows, s.k, 2);
    const Matrix out(DType::f32, s.rows, s.n);
    ops::linear(*backend, out, x, layer.packed, Epilogue::store);
    double worst = 0;
    for (int64_t r = 0; r < s.rows; ++r) {
      for (int64_t c = 0; c < s.n; ++c) {
        worst = std::max(worst, std::abs(out.at(r, c) - layer.expected(x, r, c)));
      }
    }
    EXPECT_LT(worst, 2e-5) << s.rows << " x " << s.k << " x " << s.n;
    EXPECT_TRUE(out.guards_intact());
  }
}

TEST_P(LinearTest, adds_to_the_residual) {
  const auto backend = GetParam().backend();
  const Layer layer(*backend, 70, 64, 3);
  const Matrix x = random_matrix(GetParam().dtype(), 9, 64, 4);
  const Matrix before = random_matrix(DType::f32, 9, 70, 5);
  Matrix out(DType::f32, 9, 70);
  for (int64_t r = 0; r < 9; ++r) out.copy_row(r, before, r);
  ops::linear(*backend, out, x, layer.packed, Epilogue::add);
  for (int64_t r = 0; r < 9; ++r) {
    for (int64_t c = 0; c < 70; ++c) {
      EXPECT_NEAR(out.at(r, c), before.at(r, c) + layer.expected(x, r, c), 1e-5);
    }
  }
  EXPECT_TRUE(out.guards_intact());
}

TEST_P(LinearTest, multiplies_gate_and_up) {
  const auto backend = GetParam().backend(2);
  const int64_t k = 64, half = 48 + 32;
  const Matrix gate = random_matrix(DType::f32, half, k, 6, 0.3f);
  const Matrix up = random_matrix(DType::bf16, half, k, 7, 0.3f);
  const HostTensor g = host_tensor(gate), u = host_tensor(up);
  const Weight packed =
      backend->prepare_weight({.parts = {&g, &u}, .pack = Pack::interleave, .name = "gate_up"});
  const Matrix x = random_matrix(GetParam().dtype(), 5, k, 8);
  const Matrix out(GetParam().dtype(), 5, half);
  ops::linear(*backend, out, x, packed, Epilogue::silu_mul);
  for (int64_t r = 0; r < 5; ++r) {
    for (int64_t c = 0; c < half; ++c) {
      double a = 0, b = 0;
      for (int64_t i = 0; i < k; ++i) {
        const bool narrow = GetParam().dtype() == DType::bf16;
        const float w = gate.view().row<float>(c)[i];
        a += x.at(r, i) * (narrow ? to_float(to_bf16(w)) : w);
        b += x.at(r, i) * up.at(c, i);
      }
      const double expected = silu(a) * b;
      EXPECT_NEAR(out.at(r, c), expected, 1e-5 + GetParam().rounding() * std::abs(expected));
    }
  }
  EXPECT_TRUE(out.guards_intact());
}

TEST_P(LinearTest, adds_silu_to_its_input) {
  const auto backend = GetParam().backend();
  for (const Shape s : {Shape{11, 96, 96}, Shape{5, 192, 96}, Shape{40, 1152, 576},
                        Shape{3, 96, 33}, Shape{1, 64, 32}}) {
    const Layer layer(*backend, s.n, s.k, 9);
    const Matrix x = random_matrix(GetParam().dtype(), s.rows, s.k, 10);
    const Matrix out(GetParam().dtype(), s.rows, s.n);
    ops::linear(*backend, out, x, layer.packed, Epilogue::residual_silu);
    double worst = 0;
    for (int64_t r = 0; r < s.rows; ++r) {
      for (int64_t c = 0; c < s.n; ++c) {
        const double expected = x.at(r, c) + silu(layer.expected(x, r, c));
        const double bound = 1e-5 + GetParam().rounding() * std::abs(expected);
        worst = std::max(worst, std::abs(out.at(r, c) - expected) / bound);
      }
    }
    EXPECT_LE(worst, 1) << s.rows << " x " << s.k << " x " << s.n;
    EXPECT_TRUE(out.guards_intact());
  }
}

TEST_P(LinearTest, adds_silu_to_a_row_alone_and_among_others) {
  const auto backend = GetParam().backend(2);
  const int64_t k = 1152, n = 576;
  const Layer layer(*backend, n, k, 15);
  const Matrix x = random_matrix(GetParam().dtype(), 40, k, 16);
  const Matrix all(GetParam().dtype(), 40, n);
  ops::linear(*backend, all, x, layer.packed, Epilogue::residual_silu);
  for (const int64_t rows : {1, 2, 7, 8, 17}) {
    Matrix some(GetParam().dtype(), rows, k);
    const Matrix out(GetParam().dtype(), rows, n);
    for (int64_t r = 0; r < rows; ++r) some.copy_row(r, x, 39 - r);
    ops::linear(*backend, out, some, layer.packed, Epilogue::residual_silu);
    for (int64_t r = 0; r < rows; ++r) EXPECT_TRUE(out.same_row(r, all, 39 - r)) << rows;
  }
}

TEST_P(LinearTest, row_is_the_same_alone_and_among_others) {
  const auto one = GetParam().backend(1), two = GetParam().backend(2),
             three = GetParam().backend(3);
  const int64_t k = 2112, n = 208;  // more than one chunk of K, blocks that split unevenly
  const Layer layer(*one, n, k, 11);
  const Matrix x = random_matrix(GetParam().dtype(), 64, k, 12);
  const Matrix all(DType::f32, 64, n), again(DType::f32, 64, n);
  ops::linear(*one, all, x, layer.packed, Epilogue::store);
  for (const auto& backend : {two, three}) {
    ops::linear(*backend, again, x, layer.packed, Epilogue::store);
    EXPECT_TRUE(again.same(all)) << backend->num_threads() << " threads";
  }
  for (int64_t rows = 1; rows <= 33; rows += rows < 18 ? 1 : 5) {
    Matrix some(GetParam().dtype(), rows, k);
    const Matrix out(DType::f32, rows, n);
    for (int64_t r = 0; r < rows; ++r) some.copy_row(r, x, 63 - r);
    ops::linear(*two, out, some, layer.packed, Epilogue::store);
    for (int64_t r = 0; r < rows; ++r) EXPECT_TRUE(out.same_row(r, all, 63 - r)) << rows;
  }
}

TEST_P(LinearTest, embeds_rows_of_the_packed_weight) {
  const auto backend = GetParam().backend();
  const Layer layer(*backend, 45, 64, 13);
  const std::vector<int32_t> ids = {44, 0, 17, 17, 31};
  const Matrix out(DType::f32, 5, 64);
  ops::embed(*backend, out, layer.packed, ids);
  for (int64_t r = 0; r < 5; ++r) {
    for (int64_t c = 0; c < 64; ++c) {
      EXPECT_EQ(out.at(r, c), layer.weight.at(ids[static_cast<size_t>(r)], c));
    }
  }
  EXPECT_TRUE(out.guards_intact());
  const std::vector<int32_t> outside = {45, 0, 0, 0, 0};
  EXPECT_THROW(ops::embed(*backend, out, layer.packed, outside), InvalidArgument);
}

TEST_P(LinearTest, appends_embeddings_to_rows) {
  const auto backend = GetParam().backend();
  const DType c = GetParam().dtype();
  const Layer table(*backend, 45, 64, 17);
  const Matrix x = random_matrix(c, 4, 96, 18);
  const Matrix out(c, 4, 96 + 64);
  std::vector<int32_t> ids = {44, 0, 17, 17};
  const auto tensor = [](std::vector<int32_t>& values) {
    return Tensor{values.data(), DType::i32, 1, static_cast<int64_t>(values.size())};
  };
  ops::append_embedding(*backend, out, x, table.packed, tensor(ids));
  for (int64_t r = 0; r < 4; ++r) {
    for (int64_t i = 0; i < 96; ++i) EXPECT_EQ(out.at(r, i), x.at(r, i));
    for (int64_t i = 0; i < 64; ++i) {
      EXPECT_EQ(out.at(r, 96 + i), table.weight.at(ids[static_cast<size_t>(r)], i));
    }
  }
  EXPECT_TRUE(out.guards_intact());
  const auto call = [&](const Matrix& to, const Matrix& from, std::vector<int32_t> tokens) {
    ops::append_embedding(*backend, to, from, table.packed, tensor(tokens));
  };
  EXPECT_THROW(call({c, 1, 160}, {c, 1, 96}, {1, 2}), InvalidArgument);
  EXPECT_THROW(call({c, 1, 159}, {c, 1, 96}, {1}), InvalidArgument);
  EXPECT_THROW(call({DType::i32, 1, 160}, {c, 1, 96}, {1}), InvalidArgument);
}

TEST_P(LinearTest, refuses_shapes_and_types_that_do_not_fit) {
  const auto backend = GetParam().backend();
  const DType c = GetParam().dtype();
  const Layer layer(*backend, 48, 64, 14);
  const auto call = [&](const Matrix& out, const Matrix& x, Epilogue epilogue) {
    ops::linear(*backend, out, x, layer.packed, epilogue);
  };
  EXPECT_THROW(call({DType::f32, 2, 48}, {c, 2, 32}, Epilogue::store), InvalidArgument);
  EXPECT_THROW(call({DType::f32, 2, 47}, {c, 2, 64}, Epilogue::store), InvalidArgument);
  EXPECT_THROW(call({DType::f32, 3, 48}, {c, 2, 64}, Epilogue::store), InvalidArgument);
  EXPECT_THROW(call({DType::i32, 2, 48}, {c, 2, 64}, Epilogue::store), InvalidArgument);
  EXPECT_THROW(call({c, 2, 24}, {c, 2, 64}, Epilogue::silu_mul), InvalidArgument);
  const Layer wider(*backend, 65, 64, 14);  // more columns than its input has to add
  const Matrix x(c, 2, 64), out(c, 2, 65);
  EXPECT_THROW(ops::linear(*backend, out, x, wider.packed, Epilogue::residual_silu),
               InvalidArgument);
}

}  // namespace
}  // namespace medusa
