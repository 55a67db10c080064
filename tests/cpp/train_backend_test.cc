#include <gtest/gtest.h>

#include <cmath>

#include "backend/cpu/cpu_train_backend.h"
#include "kernel_case.h"

namespace medusa {

namespace cpu {
const TrainKernels& amx_emulated_train_kernels();
}  // namespace cpu

namespace {

struct TrainCase {
  const cpu::TrainKernels* kernels;
  ComputeType compute;

  std::shared_ptr<TrainBackend> backend(int threads = 2) const {
    return make_cpu_train_backend(*kernels, compute, threads);
  }
  DType dtype() const { return compute == ComputeType::float32 ? DType::f32 : DType::bf16; }
  double rounding() const { return compute == ComputeType::float32 ? 1e-6 : 1.0 / 256; }
};

std::vector<TrainCase> all_cases() {
  std::vector<TrainCase> cases;
  for (const cpu::Isa isa : cpu::supported_isas()) {
    cases.push_back({&cpu::train_kernels(isa), ComputeType::float32});
    cases.push_back({&cpu::train_kernels(isa), ComputeType::bfloat16});
  }
  cases.push_back({&cpu::amx_emulated_train_kernels(), ComputeType::bfloat16});
  return cases;
}

class TrainBackendTest : public testing::TestWithParam<TrainCase> {
 protected:
  Matrix random(int64_t rows, int64_t cols, uint32_t seed) const {
    return random_matrix(GetParam().dtype(), rows, cols, seed);
  }
};
INSTANTIATE_TEST_SUITE_P(every_isa, TrainBackendTest, testing::ValuesIn(all_cases()),
                         [](const testing::TestParamInfo<TrainCase>& tested) {
                           return std::string(tested.param.kernels->name) + "_" +
                                  std::string(name(tested.param.dtype()));
                         });

struct Shape {
  int64_t rows, inner, columns;
};
const Shape kShapes[] = {{1, 32, 16},   {5, 64, 48},     {16, 96, 16},  {37, 32, 208},
                         {100, 64, 80}, {130, 1120, 32}, {33, 2080, 16}};

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

TEST_P(TrainBackendTest, multiplies_and_adds_any_shape) {
  const auto backend = GetParam().backend();
  for (const Shape& s : kShapes) {
    const Matrix a = random((s.rows + 15) / 16 * 16, s.inner, 1), b = random(s.inner, s.columns, 2);
    const Matrix c(DType::f32, s.rows, s.columns);
    Panels panels = backend->allocate_panels(s.inner, s.columns);
    backend->pack(panels, b);
    const Tensor rows = a.view().slice(0, s.rows);
    backend->gemm(c, rows, panels, false);
    EXPECT_LT(worst_error(c, a, b, 1), 1e-5) << s.rows << " " << s.inner << " " << s.columns;
    backend->gemm(c, rows, panels, true);
    EXPECT_LT(worst_error(c, a, b, 2), 2e-5);
    EXPECT_TRUE(c.guards_intact());
  }
}

TEST_P(TrainBackendTest, packs_a_transposed_matrix_as_its_transpose) {
  const auto backend = GetParam().backend();
  const Matrix w = random(48, 64, 1), t(GetParam().dtype(), 64, 48);
  backend->transpose(t, w);
  for (int64_t r = 0; r < 48; ++r) {
    for (int64_t c = 0; c < 64; ++c) ASSERT_EQ(t.at(c, r), w.at(r, c));
  }
  EXPECT_TRUE(t.guards_intact());
  Panels straight = backend->allocate_panels(64, 48), turned = backend->allocate_panels(64, 48);
  backend->pack(straight, t);
  backend->pack_transposed(turned, w);
  EXPECT_EQ(std::memcmp(straight.storage.data(), turned.storage.data(), straight.storage.bytes()),
            0);
}

TEST_P(TrainBackendTest, products_do_not_depend_on_threads_or_other_rows) {
  const Matrix a = random(208, 1152, 1), b = random(1152, 400, 2);
  const Matrix all(DType::f32, 208, 400), some(DType::f32, 16, 400);
  const auto one = GetParam().backend(1), three = GetParam().backend(3);
  Panels panels = one->allocate_panels(1152, 400);
  one->pack(panels, b);
  three->gemm(all, a, panels, false);
  one->gemm(some, a.view().slice(192, 16), panels, false);
  for (int64_t r = 0; r < 16; ++r) EXPECT_TRUE(some.same_row(r, all, 192 + r));
}

TEST_P(TrainBackendTest, cross_entropy_and_its_gradient) {
  constexpr int64_t kVocab = 75, kPadded = 96;
  const auto backend = GetParam().backend();
  const Matrix logits = random_matrix(DType::f32, 4, kPadded, 3, 4.0f);
  const Matrix work = random_matrix(DType::f32, 4, kPadded, 3, 4.0f);
  const Matrix grad(GetParam().dtype(), 4, kPadded);
  const std::vector<int32_t> targets = {0, 74, -1, 31};
  std::vector<TargetScore> scores(4);
  backend->cross_entropy(grad, scores, work, kVocab, targets, 0.5f);
  for (int64_t r = 0; r < 4; ++r) {
    const int32_t target = targets[static_cast<size_t>(r)];
    double sum = 0;
    int rank = 0;
    for (int64_t c = 0; c < kVocab; ++c) sum += std::exp(logits.at(r, c));
    for (int64_t c = 0; target >= 0 && c < kVocab; ++c)
      rank += logits.at(r, c) > logits.at(r, target);
    const TargetScore& score = scores[static_cast<size_t>(r)];
    EXPECT_EQ(score.rank, target < 0 ? -1 : rank);
    EXPECT_NEAR(score.log_prob, target < 0 ? 0 : logits.at(r, target) - std::log(sum), 1e-5);
    for (int64_t c = 0; c < kPadded; ++c) {
      const double p = c < kVocab ? std::exp(logits.at(r, c)) / sum : 0;
      const double expected = target < 0 ? 0 : 0.5 * (p - (c == target));
      EXPECT_NEAR(grad.at(r, c), expected, GetParam().rounding() * std::abs(expected) + 1e-7);
    }
  }
  EXPECT_TRUE(grad.guards_intact());
}

TEST_P(TrainBackendTest, a_residual_block_and_its_gradient) {
  const auto backend = GetParam().backend();
  const Matrix x = random(9, 128, 1);  // of a grounded layer: the state comes first
  const Matrix out(GetParam().dtype(), 9, 64), dz(GetParam().dtype(), 9, 64);
  const Matrix z = random_matrix(DType::f32, 9, 64, 2, 5.0f),
               dh = random_matrix(DType::f32, 9, 64, 3);
  const Matrix sum = random_matrix(DType::f32, 9, 64, 2, 5.0f),
               bias = random_matrix(DType::f32, 1, 64, 4);
  const Matrix dbias(DType::f32, 1, 64);
  backend->residual_silu(out, x, sum, bias.view().row<float>(0));
  backend->silu_backward(dz, dbias.view().row<float>(0), dh, sum);
  for (int64_t c = 0; c < 64; ++c) {
    double total = 0;
    for (int64_t r = 0; r < 9; ++r) {
      const double t = z.at(r, c) + bias.at(0, c), s = 1 / (1 + std::exp(-t));
      const double expected = x.at(r, c) + t * s, slope = dh.at(r, c) * s * (1 + t * (1 - s));
      EXPECT_NEAR(sum.at(r, c), t, 1e-6);
      EXPECT_NEAR(out.at(r, c), expected, GetParam().rounding() * std::abs(expected) + 1e-6);
      EXPECT_NEAR(dz.at(r, c), slope, GetParam().rounding() * std::abs(slope) + 1e-6);
      total += slope;
    }
    EXPECT_NEAR(dbias.at(0, c), total, 1e-5);
  }
}

TEST_P(TrainBackendTest, adamw_and_norm) {
  constexpr int64_t kCount = 16 * 1200;  // more than one task
  const auto backend = GetParam().backend();
  const Matrix g = random_matrix(DType::f32, 1, kCount, 1),
               w0 = random_matrix(DType::f32, 1, kCount, 2);
  const Matrix w = random_matrix(DType::f32, 1, kCount, 2), m(DType::f32, 1, kCount),
               v(DType::f32, 1, kCount);
  const auto all = [](const Matrix& x) { return std::span(x.view().row<float>(0), kCount); };
  double squares = 0;
  for (const float x : all(g)) squares += double{x} * x;
  EXPECT_NEAR(backend->squared_norm(all(g)), squares, 1e-9 * squares);
  backend->adamw(all(w), all(g), all(m), all(v),
                 {.learning_rate = 0.01f, .weight_decay = 0.1f, .grad_scale = 0.5f, .step = 1});
  for (int64_t i = 0; i < kCount; ++i) {
    const double grad = 0.5 * g.at(0, i);
    const double step = 0.01 * grad / (std::abs(grad) + 1e-8);  // the first step of Adam
    ASSERT_NEAR(w.at(0, i), w0.at(0, i) * (1 - 0.01 * 0.1) - step, 1e-6);
    ASSERT_NEAR(m.at(0, i), 0.1 * grad, 1e-7);
    ASSERT_NEAR(v.at(0, i), 0.001 * grad * grad, 1e-8);
  }
}

}  // namespace
}  // namespace medusa
