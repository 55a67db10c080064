#include <cmath>

#include "backend/cuda/runtime.h"
#include "backend/cuda/train_kernels.h"
#include "train_case.h"

namespace medusa {
namespace {

using cuda::GemmForm;

class CudaGemmTest : public DeviceTrainTest {};
MEDUSA_FOR_EVERY_TRAIN_CASE(CudaGemmTest);

struct Shape {
  int64_t rows, inner, columns;
};
const Shape kShapes[] = {{1, 32, 16}, {5, 64, 48}, {37, 32, 208}, {70, 160, 144}, {33, 1056, 16}};
// More than 131 tiles of 128 along either side, which is where bf16 takes those.
const Shape kLarge[] = {{21, 48, 16912}, {16888, 32, 32}};

std::vector<Shape> shapes(DType dtype) {
  std::vector<Shape> all(std::begin(kShapes), std::end(kShapes));
  if (dtype == DType::bf16) all.insert(all.end(), std::begin(kLarge), std::end(kLarge));
  return all;
}

double worst_error(const Matrix& c, const Matrix& a, const Matrix& b, double scale) {
  double worst = 0;
  for (int64_t r = 0; r < c.view().rows; ++r) {
    for (int64_t n = 0; n < c.view().cols; ++n) {
      double sum = 0;
      for (int64_t k = 0; k < a.view().cols; ++k) sum += a.at(r, k) * b.at(k, n);
      worst = std::max(worst, std::abs(c.at(r, n) - scale * sum));
    }
  }
  return worst / std::sqrt(static_cast<double>(a.view().cols));
}

Matrix turned(const Matrix& x, int64_t padded) {
  Matrix out(x.view().dtype, x.view().cols, padded);
  for (int64_t r = 0; r < x.view().rows; ++r) {
    for (int64_t c = 0; c < x.view().cols; ++c) out.set(c, r, static_cast<float>(x.at(r, c)));
  }
  return out;
}

TEST_P(CudaGemmTest, multiplies_and_adds_any_shape) {
  for (const Shape& s : shapes(dtype())) {
    const Matrix a = random(s.rows, s.inner, 1), b = random(s.inner, s.columns, 2);
    const Placed left = placed(a), right = placed(b), c = placed(DType::f32, s.rows, s.columns);
    Panels panels = backend->allocate_panels(s.inner, s.columns);
    backend->pack(panels, right);
    backend->gemm(c, left, panels, false);
    EXPECT_LT(worst_error(c.fetch(), a, b, 1), 1e-5) << s.rows << " " << s.inner;
    backend->gemm(c, left, panels, true);
    EXPECT_LT(worst_error(c.fetch(), a, b, 2), 2e-5) << s.rows << " " << s.inner;
  }
}

// Each way an operand may lie gives the same chains of products.
TEST_P(CudaGemmTest, turned_operands_give_the_same_bits) {
  const cuda::Stream stream;
  const auto element = dtype() == DType::f32 ? cuda::Element::f32 : cuda::Element::bf16;
  for (const Shape& s : shapes(dtype())) {
    const int64_t padded_rows = (s.rows + 15) / 16 * 16;
    const Matrix a = random(s.rows, s.inner, 1), b = random(s.inner, s.columns, 2);
    const Placed left = placed(a), right = placed(b);
    const Placed left_turned = placed(turned(a, padded_rows)),
                 right_turned = placed(turned(b, s.inner));
    const Placed c[3] = {placed(DType::f32, s.rows, s.columns),
                         placed(DType::f32, s.rows, s.columns),
                         placed(DType::f32, s.rows, s.columns)};
    cuda::GemmArgs g{};
    g.rows = s.rows;
    g.columns = g.c_columns = g.c_stride = s.columns;
    g.inner = s.inner;
    const auto multiply = [&](const Placed& out, GemmForm form, const Placed& l, const Placed& r) {
      g.c = out.floats();
      g.a = l.view().data;
      g.b = r.view().data;
      g.a_stride = l.view().cols;
      g.b_stride = r.view().cols;
      cuda::gemm(stream, element, form, g);
    };
    multiply(c[0], GemmForm::plain, left, right);
    multiply(c[1], GemmForm::turned_a, left_turned, right);
    multiply(c[2], GemmForm::turned_b, left, right_turned);
    stream.synchronize();
    const Matrix plain = c[0].fetch();
    EXPECT_LT(worst_error(plain, a, b, 1), 1e-5) << s.rows << " " << s.inner;
    EXPECT_TRUE(c[1].fetch().same(plain)) << s.rows << " " << s.inner;
    EXPECT_TRUE(c[2].fetch().same(plain)) << s.rows << " " << s.inner;
  }
}

// A weight's rows that a padded output has no use for.
TEST_P(CudaGemmTest, columns_beyond_a_weight_become_zero) {
  const cuda::Stream stream;
  const auto element = dtype() == DType::f32 ? cuda::Element::f32 : cuda::Element::bf16;
  const Matrix x = random(20, 64, 1), w = random(50, 64, 2);
  const Placed rows = placed(x), weight = placed(w),
               y = placed(random_matrix(DType::f32, 20, 64, 3));
  cuda::gemm(stream, element, GemmForm::turned_b,
             {.c = y.floats(),
              .a = rows.view().data,
              .b = weight.view().data,
              .rows = 20,
              .columns = 50,
              .inner = 64,
              .a_stride = 64,
              .b_stride = 64,
              .c_stride = 64,
              .c_columns = 64,
              .accumulate = false});
  stream.synchronize();
  const Matrix found = y.fetch();
  for (int64_t r = 0; r < 20; ++r) {
    for (int64_t c = 0; c < 64; ++c) {
      double sum = 0;
      for (int64_t k = 0; c < 50 && k < 64; ++k) sum += x.at(r, k) * w.at(c, k);
      ASSERT_NEAR(found.at(r, c), sum, 1e-4);
    }
  }
}

TEST_P(CudaGemmTest, products_do_not_depend_on_other_rows_and_columns) {
  const Matrix a = random(150, 96, 1), b = random(96, 160, 2);
  const Placed left = placed(a), right = placed(b);
  const Placed all = placed(DType::f32, 150, 160), some = placed(DType::f32, 3, 160);
  Panels panels = backend->allocate_panels(96, 160);
  backend->pack(panels, right);
  backend->gemm(all, left, panels, false);
  backend->gemm(some, left.view().slice(141, 3), panels, false);
  const Matrix whole = all.fetch(), part = some.fetch();
  for (int64_t r = 0; r < 3; ++r) EXPECT_TRUE(part.same_row(r, whole, 141 + r));
}

}  // namespace
}  // namespace medusa
