#include <gtest/gtest.h>

#include "verb_case.h"

namespace medusa {
namespace {

constexpr int64_t kRows = 160, kHeads = 4, kGroups = 2;
const std::vector<int32_t> kStarts = {0, 33, 34, 136, 160};

std::vector<int32_t> positions() {
  std::vector<int32_t> out;
  for (size_t i = 0; i + 1 < kStarts.size(); ++i) {
    for (int32_t p = 0; p < kStarts[i + 1] - kStarts[i]; ++p) out.push_back(p);
  }
  return out;
}

/// Attention and its gradients in double, each score on its own.
class Twin {
 public:
  Twin(const Matrix& q, const Matrix& k, const Matrix& v, const Matrix& dout, AttentionShape shape)
      : q_(q), k_(k), v_(v), dout_(dout), shape_(shape), positions_(positions()) {
    for (auto* part : {&out, &dq}) part->assign(kRows * kHeads * shape.head_dim, 0);
    for (auto* part : {&dk, &dv}) part->assign(kRows * kGroups * shape.head_dim, 0);
    for (int64_t row = 0; row < kRows; ++row) {
      for (int64_t head = 0; head < kHeads; ++head) add(row, head);
    }
  }

  std::vector<double> out, dq, dk, dv;

 private:
  static double& at(std::vector<double>& x, int64_t row, int64_t col, int64_t cols) {
    return x[static_cast<size_t>(row * cols + col)];
  }

  void add(int64_t row, int64_t head) {
    const int64_t d = shape_.head_dim, own = head * d, group = head / (kHeads / kGroups) * d;
    const int64_t position = positions_[static_cast<size_t>(row)], window = shape_.sliding_window;
    const int64_t seen = window > 0 ? std::min(position + 1, window) : position + 1;
    std::vector<double> p, dp;
    double sum = 0, mean = 0;
    for (int64_t j = row + 1 - seen; j <= row; ++j) {
      double score = 0, grad = 0;
      for (int64_t c = 0; c < d; ++c) {
        score += q_.at(row, own + c) * k_.at(j, group + c);
        grad += dout_.at(row, own + c) * v_.at(j, group + c);
      }
      p.push_back(std::exp(shape_.scale * score));
      dp.push_back(grad);
      sum += p.back();
    }
    for (size_t i = 0; i < p.size(); ++i) mean += (p[i] /= sum) * dp[i];
    for (size_t i = 0; i < p.size(); ++i) {
      const int64_t j = row + 1 - seen + static_cast<int64_t>(i);
      const double ds = shape_.scale * p[i] * (dp[i] - mean);
      for (int64_t c = 0; c < d; ++c) {
        at(out, row, own + c, kHeads * d) += p[i] * v_.at(j, group + c);
        at(dq, row, own + c, kHeads * d) += ds * k_.at(j, group + c);
        at(dk, j, group + c, kGroups * d) += ds * q_.at(row, own + c);
        at(dv, j, group + c, kGroups * d) += p[i] * dout_.at(row, own + c);
      }
    }
  }

  const Matrix &q_, &k_, &v_, &dout_;
  AttentionShape shape_;
  std::vector<int32_t> positions_;
};

class TrainAttentionTest : public VerbTest {
 protected:
  double far(const Matrix& found, const std::vector<double>& expected) const {
    return error(found, [&](int64_t r, int64_t c) {
      return expected[static_cast<size_t>(r * found.view().cols + c)];
    });
  }
};
INSTANTIATE_TEST_SUITE_P(every_isa, TrainAttentionTest, testing::ValuesIn(all_verb_cases()),
                         verb_case_name);

TEST_P(TrainAttentionTest, sees_its_document_only_and_its_gradient) {
  const std::vector<int32_t> at = positions();
  for (const auto& [head_dim, window] : {std::pair{32, 0}, {48, 0}, {64, 9}}) {
    const AttentionShape shape{kHeads, kGroups, head_dim, window, 0.3f};
    const Documents documents{kStarts, at};
    const int64_t q_cols = kHeads * head_dim, kv_cols = kGroups * head_dim;
    const Matrix q = wide(kRows, q_cols, 1), k = wide(kRows, kv_cols, 2),
                 v = wide(kRows, kv_cols, 3), dout = wide(kRows, q_cols, 4);
    const Matrix out(GetParam().dtype(), kRows, q_cols), dq(DType::f32, kRows, q_cols),
        dk(DType::f32, kRows, kv_cols), dv(DType::f32, kRows, kv_cols);
    backend->attention(out, q, k, v, documents, shape);
    backend->attention_backward(dq, dk, dv, dout, q, k, v, documents, shape);
    const Twin twin(q, k, v, dout, shape);
    const double bound = 3 * rounding;
    EXPECT_LT(far(out, twin.out), bound);
    EXPECT_LT(far(dq, twin.dq), bound);
    EXPECT_LT(far(dk, twin.dk), bound);
    EXPECT_LT(far(dv, twin.dv), bound);
    EXPECT_TRUE(out.guards_intact() && dq.guards_intact() && dk.guards_intact());
  }
}

TEST_P(TrainAttentionTest, bits_depend_neither_on_threads_nor_on_other_documents) {
  const std::vector<int32_t> at = positions(), alone = {0, 102};
  const AttentionShape shape{kHeads, kGroups, 32, 0, 0.2f};
  const Matrix q = wide(kRows, 128, 1), k = wide(kRows, 64, 2), v = wide(kRows, 64, 3),
               dout = wide(kRows, 128, 4);
  const Matrix all(GetParam().dtype(), kRows, 128), own(GetParam().dtype(), 102, 128);
  const Matrix dq(DType::f32, kRows, 128), dk(DType::f32, kRows, 64), dv(DType::f32, kRows, 64);
  const Matrix own_dq(DType::f32, 102, 128), own_dk(DType::f32, 102, 64),
      own_dv(DType::f32, 102, 64);
  const auto some = [](const Matrix& x) { return x.view().slice(34, 102); };
  const Documents one{alone, std::span(at).subspan(34, 102)};
  GetParam().backend(3)->attention(all, q, k, v, {kStarts, at}, shape);
  GetParam().backend(1)->attention(own, some(q), some(k), some(v), one, shape);
  GetParam().backend(3)->attention_backward(dq, dk, dv, dout, q, k, v, {kStarts, at}, shape);
  GetParam().backend(1)->attention_backward(own_dq, own_dk, own_dv, some(dout), some(q), some(k),
                                            some(v), one, shape);
  for (int64_t r = 0; r < 102; ++r) {
    EXPECT_TRUE(own.same_row(r, all, 34 + r));
    EXPECT_TRUE(own_dq.same_row(r, dq, 34 + r));
    EXPECT_TRUE(own_dk.same_row(r, dk, 34 + r));
    EXPECT_TRUE(own_dv.same_row(r, dv, 34 + r));
  }
}

}  // namespace
}  // namespace medusa
