#include <cmath>

#include "device_case.h"
#include "linear_case.h"

namespace medusa {
namespace {

class CudaLinearTest : public DeviceTest {};
MEDUSA_FOR_EVERY_DEVICE_CASE(CudaLinearTest);

Matrix product(Backend& backend, const Matrix& x, const Weight& weight, Epilogue epilogue,
               const Matrix& before) {
  const Resident in(backend, x), out(backend, before);
  ops::linear(backend, out, in, weight, epilogue);
  return out.fetch();
}

struct Shape {
  int64_t rows, k, n;
};

TEST_P(CudaLinearTest, stores_products_of_any_shape) {
  for (const Shape s :
       {Shape{1, 32, 1}, Shape{2, 64, 15}, Shape{3, 96, 33}, Shape{7, 576, 100},
        Shape{13, 1056, 48}, Shape{64, 160, 130}, Shape{200, 64, 80}, Shape{1, 2080, 31},
        Shape{64, 1088, 32}, Shape{200, 1120, 97}, Shape{40, 480, 500}, Shape{20, 544, 390}}) {
    const Layer layer(*backend, s.n, s.k, 1);
    const Matrix x = random_matrix(dtype(), s.rows, s.k, 2);
    const Matrix out =
        product(*backend, x, layer.packed, Epilogue::store, Matrix(DType::f32, s.rows, s.n));
    double worst = 0;
    for (int64_t r = 0; r < s.rows; ++r) {
      for (int64_t c = 0; c < s.n; ++c) {
        worst = std::max(worst, std::abs(out.at(r, c) - layer.expected(x, r, c)));
      }
    }
    EXPECT_LT(worst, 2e-5) << s.rows << " x " << s.k << " x " << s.n;
  }
}

TEST_P(CudaLinearTest, adds_to_the_residual) {
  const Layer layer(*backend, 35, 64, 3);
  for (const int64_t rows : {1, 9, 64, 200}) {
    const Matrix x = random_matrix(dtype(), rows, 64, 4);
    const Matrix before = random_matrix(DType::f32, rows, 35, 5);
    const Matrix out = product(*backend, x, layer.packed, Epilogue::add, before);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < 35; ++c) {
        ASSERT_NEAR(out.at(r, c), before.at(r, c) + layer.expected(x, r, c), 1e-5);
      }
    }
  }
}

TEST_P(CudaLinearTest, multiplies_gate_and_up) {
  const int64_t k = 64, half = 48 + 32;
  const Matrix gate = random_matrix(dtype(), half, k, 6, 0.3f);
  const Matrix up = random_matrix(dtype(), half, k, 7, 0.3f);
  const HostTensor g = host_tensor(gate), u = host_tensor(up);
  const Weight packed =
      backend->prepare_weight({.parts = {&g, &u}, .pack = Pack::interleave, .name = "gate_up"});
  for (const int64_t rows : {1, 5, 64, 200}) {
    const Matrix x = random_matrix(dtype(), rows, k, 8);
    const Matrix out =
        product(*backend, x, packed, Epilogue::silu_mul, Matrix(dtype(), rows, half));
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < half; ++c) {
        double a = 0, b = 0;
        for (int64_t i = 0; i < k; ++i) {
          a += x.at(r, i) * gate.at(c, i);
          b += x.at(r, i) * up.at(c, i);
        }
        const double expected = silu(a) * b;
        ASSERT_NEAR(out.at(r, c), expected, 1e-5 + GetParam().rounding() * std::abs(expected));
      }
    }
  }
}

TEST_P(CudaLinearTest, adds_silu_to_its_input) {
  for (const Shape s : {Shape{11, 96, 96}, Shape{5, 192, 96}, Shape{3, 96, 33}, Shape{1, 64, 32},
                        Shape{64, 64, 33}, Shape{200, 32, 17}}) {
    const Layer layer(*backend, s.n, s.k, 9);
    const Matrix x = random_matrix(dtype(), s.rows, s.k, 10);
    const Matrix out =
        product(*backend, x, layer.packed, Epilogue::residual_silu, Matrix(dtype(), s.rows, s.n));
    for (int64_t r = 0; r < s.rows; ++r) {
      for (int64_t c = 0; c < s.n; ++c) {
        const double expected = x.at(r, c) + silu(layer.expected(x, r, c));
        ASSERT_NEAR(out.at(r, c), expected, 1e-5 + GetParam().rounding() * std::abs(expected));
      }
    }
  }
}

// The first row alone, and among others that hold something else.
TEST_P(CudaLinearTest, row_is_the_same_alone_and_among_others) {
  const int64_t k = 1088, n = 160;
  const Layer layer(*backend, n, k, 15);
  for (const Epilogue epilogue : {Epilogue::store, Epilogue::residual_silu}) {
    const DType type = epilogue == Epilogue::store ? DType::f32 : dtype();
    const Matrix x = random_matrix(dtype(), 64, k, 16);
    Matrix alone(dtype(), 1, k);
    alone.copy_row(0, x, 63);
    const Matrix expected = product(*backend, alone, layer.packed, epilogue, Matrix(type, 1, n));
    for (const int64_t rows : {2, 7, 8, 9, 17, 33, 64}) {
      Matrix some = random_matrix(dtype(), rows, k, 17);
      some.copy_row(rows - 1, x, 63);
      const Matrix out = product(*backend, some, layer.packed, epilogue, Matrix(type, rows, n));
      EXPECT_TRUE(expected.same_row(0, out, rows - 1)) << rows;
    }
  }
}

TEST_P(CudaLinearTest, rows_of_a_packed_weight_are_packed_again) {
  const Layer layer(*backend, 40, 64, 20);
  const std::vector<int32_t> ids = {39, 0, 17};
  const Weight picked =
      backend->prepare_weight({.packed = &layer.packed, .rows = ids, .name = "picked"});
  const Resident rows(*backend, Matrix(DType::f32, 3, 64));
  const std::vector<int32_t> all = {0, 1, 2};
  ops::embed(*backend, rows, picked, all);
  const Matrix found = rows.fetch();
  for (int64_t r = 0; r < 3; ++r) {
    for (int64_t c = 0; c < 64; ++c) {
      ASSERT_EQ(found.at(r, c), layer.weight.at(ids[static_cast<size_t>(r)], c));
    }
  }
}

}  // namespace
}  // namespace medusa
