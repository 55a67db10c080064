#include <cmath>
#include <numeric>

#include "backend/cuda/runtime.h"
#include "backend/cuda/transfer.h"
#include "medusa/error.h"
#include "train_case.h"

namespace medusa {
namespace {

class CudaTrainTest : public DeviceTrainTest {
 protected:
  double tolerance(double value) const { return rounding() * std::abs(value) + 2e-6; }
};
MEDUSA_FOR_EVERY_TRAIN_CASE(CudaTrainTest);

TEST_P(CudaTrainTest, names_the_device_and_refuses_float16) {
  EXPECT_TRUE(backend->name().starts_with("cuda (")) << backend->name();
  EXPECT_EQ(backend->compute_dtype(), dtype());
  EXPECT_THROW(make_train_backend("cuda", ComputeType::float16, 0), InvalidArgument);
  EXPECT_THROW(make_train_backend("cuda:77", GetParam().compute, 0), DeviceError);
  EXPECT_THROW(make_train_backend("gpu", GetParam().compute, 0), InvalidArgument);
}

TEST_P(CudaTrainTest, loads_rows_of_the_host_behind_others) {
  const std::vector<int64_t> rows = {6, 0, 6, 3, 1};
  for (const DType type : {DType::f32, DType::bf16}) {
    const Matrix from = random_matrix(type, 7, 96, 1);
    const Matrix before = random(8, 160, 2);
    const Placed out = placed(before);
    backend->load_rows(out, 64, host_tensor(from), rows);
    const Matrix found = out.fetch();
    Matrix expected(dtype(), 8, 160);
    for (int64_t r = 0; r < 8; ++r) {
      expected.copy_row(r, before, r);
      for (int64_t c = 0; c < 96; ++c) {
        const bool is_row = r < static_cast<int64_t>(rows.size());
        const double x = is_row ? from.at(rows[static_cast<size_t>(r)], c) : 0;
        expected.set(r, 64 + c, static_cast<float>(x));
      }
    }
    EXPECT_TRUE(found.same(expected));
  }
}

// Of more bytes than go up in one piece, and none at all.
TEST_P(CudaTrainTest, loads_more_rows_than_one_piece_holds) {
  constexpr int64_t kCols = 4096, kRows = (int64_t{1} << 24) / (kCols * 4) + 3;
  const Matrix from = random_matrix(DType::f32, 5, kCols, 1);
  std::vector<int64_t> rows(kRows);
  for (int64_t i = 0; i < kRows; ++i) rows[static_cast<size_t>(i)] = i % 5;
  const Placed out = placed(dtype(), kRows + 1, kCols), none = placed(random(3, kCols, 2));
  if (GetParam().schedule == 0) {
    backend->load_rows(out, 0, host_tensor(from), rows);
    const Matrix found = out.fetch();
    const int64_t last = kRows - 1;
    for (int64_t c = 0; c < kCols; ++c) {
      for (const int64_t r : {int64_t{0}, last - 3, last - 2, last}) {
        ASSERT_NEAR(found.at(r, c), from.at(r % 5, c), tolerance(from.at(r % 5, c)));
      }
      ASSERT_EQ(found.at(kRows, c), 0);
    }
  }
  backend->load_rows(none, 0, host_tensor(from), {});
  EXPECT_TRUE(none.fetch().same(Matrix(dtype(), 3, kCols)));
}

TEST_P(CudaTrainTest, clears_adds_and_narrows) {
  const Matrix x = random_matrix(DType::f32, 5, 320, 1), y = random_matrix(DType::f32, 5, 192, 2);
  const Placed wide = placed(x), sum = placed(y), narrow = placed(dtype(), 5, 320);
  backend->add_columns(sum, wide);
  backend->narrow(narrow, wide);
  backend->zero(wide.view().slice(1, 3));
  const Matrix cleared = wide.fetch(), added = sum.fetch(), rounded = narrow.fetch();
  Matrix expected(dtype(), 5, 320);
  for (int64_t r = 0; r < 5; ++r) {
    for (int64_t c = 0; c < 320; ++c) {
      expected.set(r, c, static_cast<float>(x.at(r, c)));
      ASSERT_EQ(cleared.at(r, c), r >= 1 && r <= 3 ? 0 : x.at(r, c));
      if (c < 192) {
        ASSERT_EQ(added.at(r, c), static_cast<float>(x.at(r, c)) + static_cast<float>(y.at(r, c)));
      }
    }
  }
  EXPECT_TRUE(rounded.same(expected));
}

TEST_P(CudaTrainTest, packs_a_transposed_matrix_as_its_transpose) {
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{48, 64}, {16, 96}, {208, 80}}) {
    const Matrix w = random(rows, cols, 1);
    const Placed in = placed(w), t = placed(dtype(), cols, rows);
    backend->transpose(t, in);
    const Matrix found = t.fetch();
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) ASSERT_EQ(found.at(c, r), w.at(r, c));
    }
    Panels straight = backend->allocate_panels(cols, rows);
    Panels turned = backend->allocate_panels(cols, rows);
    backend->pack(straight, t);
    backend->pack_transposed(turned, in);
    backend->wait();
    EXPECT_EQ(std::memcmp(straight.storage.data(), turned.storage.data(), found.view().bytes()), 0);
  }
}

TEST_P(CudaTrainTest, a_residual_block_and_its_gradient) {
  for (const int64_t rows : {1, 9, 40}) {
    const Matrix x = random(rows, 128, 1);  // of a grounded layer: the state comes first
    const Matrix z = random_matrix(DType::f32, rows, 80, 2, 5.0f);
    const Matrix dh = random_matrix(DType::f32, rows, 80, 3);
    const Matrix bias = random_matrix(DType::f32, 1, 80, 4),
                 start = random_matrix(DType::f32, 1, 80, 5);
    const Placed in = placed(x), sum = placed(z), grad = placed(dh), b = placed(bias);
    const Placed out = placed(dtype(), rows, 80), dz = placed(dtype(), rows, 80),
                 db = placed(start);
    backend->residual_silu(out, in, sum, b.floats());
    backend->silu_backward(dz, db.floats(), grad, sum);
    const Matrix biased = sum.fetch(), h = out.fetch(), slopes = dz.fetch(), totals = db.fetch();
    for (int64_t c = 0; c < 80; ++c) {
      double total = start.at(0, c);
      for (int64_t r = 0; r < rows; ++r) {
        const double t = z.at(r, c) + bias.at(0, c), s = 1 / (1 + std::exp(-t));
        const double expected = x.at(r, c) + t * s, slope = dh.at(r, c) * s * (1 + t * (1 - s));
        ASSERT_NEAR(biased.at(r, c), t, 2e-6);
        ASSERT_NEAR(h.at(r, c), expected, tolerance(expected));
        ASSERT_NEAR(slopes.at(r, c), slope, tolerance(slope));
        total += slope;
      }
      ASSERT_NEAR(totals.at(0, c), total, 3e-5);
    }
  }
}

// Rows of `kept` logits and their targets, on the device and in float64.
struct Losses {
  int64_t vocab, padded;
  std::vector<int32_t> targets;
  Matrix logits = random_matrix(DType::f32, static_cast<int64_t>(targets.size()), padded, 3, 4.0f);

  double sum(int64_t r) const {
    double sum = 0;
    for (int64_t c = 0; c < vocab; ++c) sum += std::exp(logits.at(r, c));
    return sum;
  }
  int32_t rank(int64_t r) const {
    const int32_t target = targets[static_cast<size_t>(r)];
    int32_t before = target < 0 ? -1 : 0;
    for (int64_t c = 0; target >= 0 && c < vocab; ++c) {
      before += logits.at(r, c) > logits.at(r, target) ||
                (logits.at(r, c) == logits.at(r, target) && c < target);
    }
    return before;
  }
};

TEST_P(CudaTrainTest, cross_entropy_and_its_gradient) {
  Losses cases[] = {{75, 96, {0, 74, -1, 31}}, {2000, 2016, {1999, 1024}}, {1, 32, {0}}};
  for (Losses& l : cases) {
    const auto rows = static_cast<int64_t>(l.targets.size());
    if (l.vocab > 2) l.logits.set(0, 1, static_cast<float>(l.logits.at(0, l.targets[0])));  // a tie
    const Placed work = placed(l.logits), grad = placed(dtype(), rows, l.padded);
    std::vector<TargetScore> scores(l.targets.size());
    backend->cross_entropy(grad, scores, work, l.vocab, l.targets, 0.5f);
    const Matrix found = grad.fetch();
    for (int64_t r = 0; r < rows; ++r) {
      const int32_t target = l.targets[static_cast<size_t>(r)];
      const double sum = l.sum(r);
      const TargetScore& score = scores[static_cast<size_t>(r)];
      EXPECT_EQ(score.rank, l.rank(r));
      EXPECT_NEAR(score.log_prob, target < 0 ? 0 : l.logits.at(r, target) - std::log(sum), 1e-5);
      for (int64_t c = 0; c < l.padded; ++c) {
        const double p = c < l.vocab ? std::exp(l.logits.at(r, c)) / sum : 0;
        const double expected = target < 0 ? 0 : 0.5 * (p - (c == target));
        ASSERT_NEAR(found.at(r, c), expected, tolerance(expected));
      }
    }
  }
}

TEST_P(CudaTrainTest, adamw_and_norm) {
  constexpr int64_t kCount = 16 * 1200;  // more than one part
  const Matrix g = random_matrix(DType::f32, 1, kCount, 1),
               w0 = random_matrix(DType::f32, 1, kCount, 2);
  const Placed grads = placed(g), w = placed(w0), m = placed(DType::f32, 1, kCount),
               v = placed(DType::f32, 1, kCount);
  double squares = 0;
  for (int64_t i = 0; i < kCount; ++i) squares += g.at(0, i) * g.at(0, i);
  EXPECT_NEAR(backend->squared_norm(grads.span()), squares, 1e-9 * squares);
  EXPECT_EQ(backend->squared_norm({}), 0);
  backend->adamw(w.span(), grads.span(), m.span(), v.span(),
                 {.learning_rate = 0.01f, .weight_decay = 0.1f, .grad_scale = 0.5f, .step = 1});
  const Matrix weights = w.fetch(), mean = m.fetch(), square = v.fetch();
  for (int64_t i = 0; i < kCount; ++i) {
    const double grad = 0.5 * g.at(0, i);
    const double step = 0.01 * grad / (std::abs(grad) + 1e-8);  // the first step of Adam
    ASSERT_NEAR(weights.at(0, i), w0.at(0, i) * (1 - 0.01 * 0.1) - step, 1e-6);
    ASSERT_NEAR(mean.at(0, i), 0.1 * grad, 1e-7);
    ASSERT_NEAR(square.at(0, i), 0.001 * grad * grad, 1e-8);
  }
}

// More of them than there was room for at first.
TEST_P(CudaTrainTest, results_arrive_together) {
  const cuda::Stream stream;
  cuda::Arrivals arrivals;
  const Matrix x = random_matrix(DType::f32, 5, 9000, 1);
  const Placed in = placed(x);
  const Matrix out(DType::f32, 5, 9000);
  for (int round = 0; round < 2; ++round) {
    for (int64_t r = 0; r < 5; ++r) {
      arrivals.expect(stream, out.view().row<float>(r), in.view().row<float>(r),
                      x.view().row_bytes() - static_cast<size_t>(4 * r));
    }
    arrivals.finish(stream);
    for (int64_t r = 0; r < 5; ++r) {
      EXPECT_EQ(out.at(r, 8999 - r), x.at(r, 8999 - r));
      EXPECT_EQ(r > 0 ? out.at(r, 8999) : 0, 0);
    }
    EXPECT_TRUE(out.same_row(0, x, 0));
    EXPECT_TRUE(out.guards_intact());
    std::memset(out.view().data, 0, out.view().bytes());
  }
}

}  // namespace
}  // namespace medusa
