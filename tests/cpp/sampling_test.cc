#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/philox.h"
#include "kernel_case.h"
#include "linear_case.h"
#include "medusa/error.h"
#include "sampling_case.h"

namespace medusa {
namespace {

class SamplingTest : public testing::TestWithParam<KernelCase> {
 protected:
  // The kernel that ranks a product's row.
  void best_of(const Matrix& values, const Matrix& ids, const Matrix& logits, int64_t row) const {
    GetParam().kernels->top_k(values.view().row<float>(row), ids.view().row<int32_t>(row),
                              values.view().cols, logits.view().row<float>(row),
                              logits.view().cols);
  }
};
MEDUSA_FOR_EVERY_ISA(SamplingTest);

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST_P(SamplingTest, top_k_sorts_the_best) {
  for (int64_t n : {1, 5, 64, 65, 1000, 49157}) {
    Matrix logits = random_matrix(DType::f32, 5, n, 1);
    for (int64_t c = 0; c < n; c += 3) logits.set(1, c, 0.5f);  // ties
    for (int64_t c = 0; c < n; ++c) logits.set(2, c, static_cast<float>(c));
    for (int64_t c = 0; c < n; ++c) logits.set(3, c, static_cast<float>(-c));
    for (int64_t k : {int64_t{1}, std::min<int64_t>(n, 10), std::min<int64_t>(n, 64)}) {
      const Matrix values(DType::f32, 5, k), ids(DType::i32, 5, k);
      for (int64_t r = 0; r < 5; ++r) {
        best_of(values, ids, logits, r);
        const std::vector<int32_t> expected = by_value(logits, r);
        for (int64_t i = 0; i < k; ++i) {
          ASSERT_EQ(ids.view().row<int32_t>(r)[i], expected[static_cast<size_t>(i)]);
          ASSERT_EQ(values.at(r, i), logits.at(r, expected[static_cast<size_t>(i)]));
        }
      }
      EXPECT_TRUE(values.guards_intact() && ids.guards_intact());
    }
  }
}

TEST_P(SamplingTest, products_are_ranked_a_weight_for_each_share_of_the_rows) {
  const auto backend = GetParam().backend(2);
  const int64_t n = 70, k = 32;
  Layer layers[] = {{*backend, n, k, 1}, {*backend, n, k, 3}};
  Weight weights[] = {std::move(layers[0].packed), std::move(layers[1].packed)};
  const Matrix x = random_matrix(GetParam().dtype(), 6, k, 5);
  const Matrix values(DType::f32, 6, 4), ids(DType::i32, 6, 4);
  ops::linear_top_k(*backend, values, ids, x, weights);
  for (int64_t r = 0; r < 6; ++r) {
    for (int64_t i = 0; i < 4; ++i) {
      const int32_t id = ids.view().row<int32_t>(r)[i];
      EXPECT_NEAR(values.at(r, i), layers[r / 3].expected(x, r, id), 1e-4);
      EXPECT_TRUE(i == 0 || values.at(r, i - 1) >= values.at(r, i));
    }
  }
  const Tensor five = x.view().slice(0, 5);
  EXPECT_THROW(ops::linear_top_k(*backend, values, ids, five, weights), InvalidArgument);
}

// Bit for bit what ranking the stored product gives, whatever the rows and the threads.
TEST_P(SamplingTest, products_are_ranked_as_if_they_were_stored) {
  for (const int threads : {1, 2, 3}) {
    const auto backend = GetParam().backend(threads);
    for (const int64_t n : {1, 5, 33, 200, 3001}) {
      Layer layer(*backend, n, 64, 7);
      for (const int64_t rows : {1, 3, 33}) {
        const Matrix x = random_matrix(GetParam().dtype(), rows, 64, 8),
                     stored(DType::f32, rows, n);
        ops::linear(*backend, stored, x, layer.packed, Epilogue::store);
        for (const int64_t k : {int64_t{1}, std::min<int64_t>(n, 10), std::min<int64_t>(n, 64)}) {
          const Matrix values(DType::f32, rows, k), ids(DType::i32, rows, k);
          const Matrix expected_values(DType::f32, rows, k), expected_ids(DType::i32, rows, k);
          for (int64_t r = 0; r < rows; ++r) best_of(expected_values, expected_ids, stored, r);
          ops::linear_top_k(*backend, values, ids, x, {&layer.packed, 1});
          ASSERT_TRUE(values.same(expected_values)) << n << " " << rows << " " << k;
          ASSERT_TRUE(ids.same(expected_ids)) << n << " " << rows << " " << k;
          ASSERT_TRUE(values.guards_intact() && ids.guards_intact());
        }
      }
    }
  }
}

TEST_P(SamplingTest, ranking_a_product_knows_ties_infinities_and_nan) {
  const auto backend = GetParam().backend(2);
  const int64_t n = 100, k = 32;
  Matrix x(GetParam().dtype(), 2, k), w(GetParam().dtype(), n, k), bias(DType::f32, 1, n);
  for (const int64_t i : {90, 40, 41}) bias.set(0, i, 2);  // all there is to the first row
  x.set(1, 0, kInfinity);                                  // infinite sums, and NaN where w is 0
  w.set(70, 0, 1);
  w.set(50, 0, 1);
  w.set(1, 0, -1);
  const HostTensor weight = host_tensor(w), biases = host_vector(bias);
  const Weight packed =
      backend->prepare_weight({.parts = {&weight}, .biases = {&biases}, .name = "w"});
  const Matrix values(DType::f32, 2, 5), ids(DType::i32, 2, 5);
  ops::linear_top_k(*backend, values, ids, x, {&packed, 1});
  const auto row = [&](int64_t r) {
    const auto* first = ids.view().row<int32_t>(r);
    return std::vector<int32_t>(first, first + 5);
  };
  EXPECT_EQ(row(0), (std::vector<int32_t>{40, 41, 90, 0, 1}));
  EXPECT_EQ(row(1), (std::vector<int32_t>{50, 70, 0, 1, 2}));
}

TEST_P(SamplingTest, argmax_takes_the_lowest_id_on_ties) {
  const auto backend = GetParam().backend();
  for (int64_t n : {1, 3, 16, 63, 64, 200, 49157}) {
    Matrix logits = random_matrix(DType::f32, 1, n, 2);
    for (int64_t best : {int64_t{0}, n / 2, n - 1}) {
      logits.set(0, best, 100.0f);
      logits.set(0, n - 1, 100.0f);
      EXPECT_EQ(sample(*backend, logits, {}), best) << n;
      logits.set(0, best, 0);
      logits.set(0, n - 1, 0);
    }
  }
}

TEST_P(SamplingTest, survives_logits_that_are_no_numbers) {
  const auto backend = GetParam().backend();
  Matrix logits(DType::f32, 1, 300);
  const Matrix values(DType::f32, 1, 8), ids(DType::i32, 1, 8);
  for (float fill : {kNan, -kInfinity, kInfinity}) {
    for (int64_t c = 0; c < 300; ++c) logits.set(0, c, fill);
    for (const SampleRow& row : {SampleRow{}, SampleRow{.temperature = 1},
                                 SampleRow{.temperature = 1, .top_p = 0.5f, .top_k = 3},
                                 SampleRow{.temperature = 1, .min_p = 0.1f}}) {
      const int32_t id = sample(*backend, logits, row);
      EXPECT_TRUE(id >= 0 && id < 300);
    }
    best_of(values, ids, logits, 0);
    for (int64_t i = 0; i < 8; ++i) EXPECT_EQ(ids.view().row<int32_t>(0)[i], i);
  }
  for (int64_t c = 0; c < 300; ++c) logits.set(0, c, c == 77 ? 1.0f : kNan);
  for (float temperature : {0.0f, 1.0f}) {
    EXPECT_EQ(sample(*backend, logits, {.temperature = temperature}), 77);
    EXPECT_EQ(sample(*backend, logits, {.temperature = temperature, .top_p = 0.9f}), 77);
  }
}

TEST_P(SamplingTest, banned_ids_are_never_drawn) {
  const auto backend = GetParam().backend();
  Matrix logits = random_matrix(DType::f32, 1, 90, 3);
  const std::vector<int32_t> best = by_value(logits, 0);
  const std::vector<int32_t> banned = {best[0], best[1]};
  EXPECT_EQ(sample(*backend, logits, {.rules = {.banned = banned}}), best[2]);
  for (int64_t position = 0; position < 200; ++position) {
    const int32_t id = sample(
        *backend, logits, {.temperature = 0.7f, .position = position, .rules = {.banned = banned}});
    EXPECT_TRUE(id != best[0] && id != best[1]);
  }
  EXPECT_TRUE(logits.same(random_matrix(DType::f32, 1, 90, 3)));
}

TEST_P(SamplingTest, row_is_the_same_alone_and_among_others) {
  const auto one = GetParam().backend(1), three = GetParam().backend(3);
  const Matrix logits = random_matrix(DType::f32, 9, 49157, 4, 3.0f);
  std::vector<SampleRow> rows;
  for (int i = 0; i < 9; ++i) {
    rows.push_back({.row = (i * 5) % 9,
                    .temperature = i % 3 == 0 ? 0.0f : 0.9f,
                    .top_p = i % 2 == 0 ? 1.0f : 0.8f,
                    .top_k = i == 4 ? 100 : 0,
                    .min_p = i == 5 ? 0.05f : 0.0f,
                    .seed = static_cast<uint64_t>(i) << 33,
                    .position = i * 1000});
  }
  std::vector<int32_t> ids(9);
  ops::sample(*three, ids, logits, rows);
  for (size_t i = 0; i < 9; ++i) EXPECT_EQ(sample(*one, logits, rows[i]), ids[i]);
}

TEST_P(SamplingTest, filters_that_keep_everything_change_nothing) {
  const auto backend = GetParam().backend();
  const Matrix logits = random_matrix(DType::f32, 1, 1000, 5);
  for (int64_t position = 0; position < 100; ++position) {
    const SampleRow plain{.temperature = 1.3f, .seed = 9, .position = position};
    SampleRow loose = plain;
    loose.min_p = 1e-30f;
    EXPECT_EQ(sample(*backend, logits, plain), sample(*backend, logits, loose));
  }
}

// The ids that vLLM's rules keep, with their renormalised probabilities.
std::vector<double> distribution(const Matrix& logits, const SampleRow& row) {
  const auto n = static_cast<size_t>(logits.view().cols);
  const std::vector<int32_t> order = by_value(logits, 0);
  std::vector<double> p(n);
  const double top = logits.at(0, order[0]);
  for (size_t i = 0; i < n; ++i) {
    p[i] = std::exp((logits.at(0, static_cast<int64_t>(i)) - top) / row.temperature);
    if (p[i] < row.min_p) p[i] = 0;
  }
  for (size_t i = 0; i < n; ++i) {
    if (row.top_k > 0 && i >= static_cast<size_t>(row.top_k)) p[static_cast<size_t>(order[i])] = 0;
  }
  const double total = std::accumulate(p.begin(), p.end(), 0.0);
  double above = 0;
  for (int32_t id : order) {
    const double weight = p[static_cast<size_t>(id)];
    if (above >= row.top_p * total) p[static_cast<size_t>(id)] = 0;
    above += weight;
  }
  const double kept = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& value : p) value /= kept;
  return p;
}

// Chi-square of many draws at successive positions against the distribution.
TEST_P(SamplingTest, draws_follow_the_filtered_softmax) {
  const auto backend = GetParam().backend();
  const Matrix logits = random_matrix(DType::f32, 1, 83, 6, 2.0f);
  constexpr int kDraws = 20000;
  for (SampleRow row :
       {SampleRow{.temperature = 1}, SampleRow{.temperature = 0.6f},
        SampleRow{.temperature = 1.5f, .top_p = 0.9f}, SampleRow{.temperature = 1, .top_k = 7},
        SampleRow{.temperature = 1, .min_p = 0.05f},
        SampleRow{.temperature = 1.2f, .top_p = 0.7f, .top_k = 20, .min_p = 0.02f}}) {
    const std::vector<double> expected = distribution(logits, row);
    std::vector<int> drawn(83);
    row.seed = 1234567890123;
    for (int i = 0; i < kDraws; ++i) {
      row.position = i;
      ++drawn[static_cast<size_t>(sample(*backend, logits, row))];
    }
    double chi = 0, rest_expected = 0;
    int cells = 0, rest = 0;
    for (size_t i = 0; i < 83; ++i) {
      const double mean = expected[i] * kDraws;
      EXPECT_TRUE(mean > 0 || drawn[i] == 0) << i;
      if (mean < 10) {
        rest += drawn[i];
        rest_expected += mean;
        continue;
      }
      chi += (drawn[i] - mean) * (drawn[i] - mean) / mean;
      ++cells;
    }
    if (rest_expected > 5) {
      chi += (rest - rest_expected) * (rest - rest_expected) / rest_expected;
      ++cells;
    }
    // Mean cells - 1, variance 2 (cells - 1): four standard deviations.
    EXPECT_LT(chi, cells - 1 + 4 * std::sqrt(2.0 * std::max(1, cells - 1))) << row.temperature;
  }
}

TEST_P(SamplingTest, noise_is_philox_of_token_and_position) {
  // A huge temperature leaves the noise alone: the drawn id has the largest of it.
  const auto backend = GetParam().backend();
  const Matrix logits(DType::f32, 1, 200);
  for (int64_t position : {int64_t{0}, int64_t{5}, int64_t{1} << 40}) {
    const uint64_t seed = 0x123456789abcdefull;
    int32_t best = 0;
    uint32_t least = UINT32_MAX;  // noise falls as the word rises
    for (uint32_t id = 0; id < 200; ++id) {
      const auto words =
          philox({id / 64 * 16 + id % 16, static_cast<uint32_t>(position),
                  static_cast<uint32_t>(static_cast<uint64_t>(position) >> 32), 0x6d656475},
                 seed);
      if (words[id / 16 % 4] < least) {
        least = words[id / 16 % 4];
        best = static_cast<int32_t>(id);
      }
    }
    EXPECT_EQ(sample(*backend, logits, {.temperature = 1, .seed = seed, .position = position}),
              best);
  }
}

TEST(Philox, known_answers) {
  // Random123's kat_vectors for philox4x32-10.
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(philox({0, 0, 0, 0}, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({~0u, ~0u, ~0u, ~0u}, ~uint64_t{0}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

}  // namespace
}  // namespace medusa
