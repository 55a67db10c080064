#include <gtest/gtest.h>

#include <cmath>

#include "kernel_case.h"
#include "medusa/error.h"

namespace medusa {
namespace {

class LayersTest : public testing::TestWithParam<KernelCase> {
 protected:
  double tolerance(double value) const {
    return 3e-6 * (1 + std::abs(value)) + GetParam().rounding() * std::abs(value);
  }
};
MEDUSA_FOR_EVERY_ISA(LayersTest);

std::span<const float> flat(const Matrix& m) {
  return {m.view().row<float>(0), static_cast<size_t>(m.view().rows * m.view().cols)};
}

double inverse_rms(const Matrix& x, int64_t row, int64_t first, int64_t count, double eps) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += x.at(row, first + i) * x.at(row, first + i);
  return 1 / std::sqrt(sum / static_cast<double>(count) + eps);
}

TEST_P(LayersTest, rms_norm_scales_rows) {
  const auto backend = GetParam().backend(2);
  for (int64_t cols : {16, 48, 576, 4096}) {
    for (int64_t rows : {1, 3, 70}) {
      const Matrix x = random_matrix(DType::f32, rows, cols, 1, 3.0f);
      const Matrix weight = random_matrix(DType::f32, 1, cols, 2);
      const Matrix out(GetParam().dtype(), rows, cols), alone(GetParam().dtype(), 1, cols);
      ops::rms_norm(*backend, out, x, flat(weight), 1e-5f);
      for (int64_t r = 0; r < rows; ++r) {
        const double scale = inverse_rms(x, r, 0, cols, 1e-5);
        for (int64_t c = 0; c < cols; ++c) {
          const double expected = x.at(r, c) * scale * weight.at(0, c);
          ASSERT_NEAR(out.at(r, c), expected, tolerance(expected));
        }
      }
      EXPECT_TRUE(out.guards_intact());
      ops::rms_norm(*backend, alone, x.view().slice(rows - 1, 1), flat(weight), 1e-5f);
      EXPECT_TRUE(alone.same_row(0, out, rows - 1));
    }
  }
}

TEST_P(LayersTest, rms_norm_refuses_what_does_not_fit) {
  const auto backend = GetParam().backend();
  const Matrix x(DType::f32, 2, 32), out(DType::f32, 2, 32), weight(DType::f32, 1, 31);
  EXPECT_THROW(ops::rms_norm(*backend, out, x, flat(weight), 1e-5f), InvalidArgument);
}

struct RopeCase {
  int heads, kv_heads, head_dim;
  bool norm, interleaved;
};

class Rotated {
 public:
  Rotated(const KernelCase& c, const RopeCase& shape, int64_t rows, int threads)
      : shape_(shape),
        qkv_(random_matrix(DType::f32, 90, cols(), 5)),
        norms_(random_matrix(DType::f32, 2, shape.head_dim, 6)),
        angles_(random_matrix(DType::f32, 128, shape.head_dim / 2, 7)),
        q(DType::f32, rows, int64_t{shape.heads} * shape.head_dim),
        keys(c.dtype(), rows, int64_t{shape.kv_heads} * shape.head_dim),
        values(c.dtype(), rows, int64_t{shape.kv_heads} * shape.head_dim),
        cos_(DType::f32, 128, shape.head_dim / 2),
        sin_(DType::f32, 128, shape.head_dim / 2) {
    for (int64_t r = 0; r < 128; ++r) {
      for (int64_t i = 0; i < shape.head_dim / 2; ++i) {
        cos_.set(r, i, static_cast<float>(std::cos(angles_.at(r, i))));
        sin_.set(r, i, static_cast<float>(std::sin(angles_.at(r, i))));
      }
    }
    std::vector<int32_t> positions;
    for (int64_t r = 0; r < rows; ++r) positions.push_back(position(r));
    const QkvSplit split{.q = q,
                         .keys = keys,
                         .values = values,
                         .q_norm = shape.norm ? norms_.view().row<float>(0) : nullptr,
                         .k_norm = shape.norm ? norms_.view().row<float>(1) : nullptr,
                         .norm_eps = 1e-6f,
                         .num_heads = shape.heads,
                         .num_kv_heads = shape.kv_heads,
                         .head_dim = shape.head_dim};
    ops::rope(*c.backend(threads), split, qkv_.view().slice(0, rows), positions,
              {cos_.view().row<float>(0), sin_.view().row<float>(0), shape.interleaved});
  }

  // Element i of head `head` of the packed qkv row, after norm (0: q, 1: k) and rotation.
  double expected(int64_t row, int64_t head, int norm, int64_t i) const {
    const int64_t half = shape_.head_dim / 2;
    const int64_t pair = shape_.interleaved ? i / 2 : i % half;
    const bool second = shape_.interleaved ? i % 2 == 1 : i >= half;
    const double a = normed(row, head, norm, shape_.interleaved ? 2 * pair : pair);
    const double b = normed(row, head, norm, shape_.interleaved ? 2 * pair + 1 : pair + half);
    const double c = cos_.at(position(row), pair), s = sin_.at(position(row), pair);
    return second ? b * c + a * s : a * c - b * s;
  }
  double value(int64_t row, int64_t i) const {
    return qkv_.at(row, int64_t{shape_.heads + shape_.kv_heads} * shape_.head_dim + i);
  }

 private:
  static int32_t position(int64_t row) { return static_cast<int32_t>(row * 37 % 128); }
  int64_t cols() const { return int64_t{shape_.heads + 2 * shape_.kv_heads} * shape_.head_dim; }
  double normed(int64_t row, int64_t head, int norm, int64_t i) const {
    const double x = qkv_.at(row, head * shape_.head_dim + i);
    if (!shape_.norm) return x;
    return x * norms_.at(norm, i) *
           inverse_rms(qkv_, row, head * shape_.head_dim, shape_.head_dim, 1e-6);
  }

  RopeCase shape_;
  Matrix qkv_, norms_, angles_;

 public:
  Matrix q, keys, values;

 private:
  Matrix cos_, sin_;
};

TEST_P(LayersTest, rope_splits_norms_and_rotates) {
  for (const RopeCase shape : {RopeCase{3, 1, 64, false, false}, RopeCase{4, 2, 80, true, false},
                               RopeCase{2, 2, 16, false, true}, RopeCase{8, 1, 128, true, true}}) {
    const int64_t rows = 9, d = shape.head_dim;
    const Rotated run(GetParam(), shape, rows, 1);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < shape.heads * d; ++c) {
        const double expected = run.expected(r, c / d, 0, c % d);
        ASSERT_NEAR(run.q.at(r, c), expected, 1e-5 * (1 + std::abs(expected)));
      }
      for (int64_t c = 0; c < shape.kv_heads * d; ++c) {
        const double key = run.expected(r, shape.heads + c / d, 1, c % d);
        ASSERT_NEAR(run.keys.at(r, c), key, 1e-5 * (1 + std::abs(key)) + tolerance(key));
        ASSERT_NEAR(run.values.at(r, c), run.value(r, c), tolerance(run.value(r, c)));
      }
    }
    EXPECT_TRUE(run.q.guards_intact() && run.keys.guards_intact() && run.values.guards_intact());
  }
}

TEST_P(LayersTest, rope_row_is_the_same_alone_and_among_others) {
  const RopeCase shape{8, 2, 128, true, false};
  const Rotated few(GetParam(), shape, 4, 1), many(GetParam(), shape, 90, 3);
  for (int64_t r = 0; r < 4; ++r) {
    EXPECT_TRUE(few.q.same_row(r, many.q, r) && few.keys.same_row(r, many.keys, r) &&
                few.values.same_row(r, many.values, r));
  }
}

TEST_P(LayersTest, gather_rows_copies) {
  const auto backend = GetParam().backend();
  const Matrix x = random_matrix(GetParam().dtype(), 9, 33, 8);
  const Matrix out(GetParam().dtype(), 3, 33);
  std::vector<int32_t> rows = {8, 0, 8};
  const Tensor picks{rows.data(), DType::i32, 1, 3};
  ops::gather_rows(*backend, out, x, picks);
  for (int64_t r = 0; r < 3; ++r) EXPECT_TRUE(out.same_row(r, x, rows[static_cast<size_t>(r)]));
  EXPECT_TRUE(out.guards_intact());
  EXPECT_THROW(ops::gather_rows(*backend, out, x, {rows.data(), DType::i32, 1, 2}),
               InvalidArgument);
  EXPECT_THROW(ops::gather_rows(*backend, out, x, {rows.data(), DType::f32, 1, 3}),
               InvalidArgument);
}

}  // namespace
}  // namespace medusa
