#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernel_case.h"
#include "medusa/error.h"

namespace medusa {
namespace {

class PosteriorTest : public testing::TestWithParam<KernelCase> {};
MEDUSA_FOR_EVERY_ISA(PosteriorTest);

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Posterior {
  float entropy;
  std::vector<float> log_probs;
  bool operator==(const Posterior&) const = default;
};

Posterior posterior(Backend& backend, const Matrix& logits, const SampleRow& draw,
                    std::span<const int32_t> tokens) {
  Posterior out{-1, std::vector<float>(tokens.size())};
  const PosteriorRow row{draw, tokens, out.log_probs, &out.entropy};
  ops::posterior(backend, logits, {&row, 1});
  return out;
}

std::vector<int32_t> all_ids(int64_t n) {
  std::vector<int32_t> ids(static_cast<size_t>(n));
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

// The same in double, from the definition.
void expect_softmax(const Posterior& found, const Matrix& logits, double temperature) {
  const int64_t n = logits.view().cols;
  double top = -kInfinity, total = 0, entropy = 0;
  for (int64_t c = 0; c < n; ++c) top = std::max(top, logits.at(0, c));
  for (int64_t c = 0; c < n; ++c) total += std::exp((logits.at(0, c) - top) / temperature);
  for (int64_t c = 0; c < n; ++c) {
    const double log_prob = (logits.at(0, c) - top) / temperature - std::log(total);
    if (std::isfinite(log_prob)) entropy -= std::exp(log_prob) * log_prob;
    const double value = found.log_probs[static_cast<size_t>(c)];
    if (std::isfinite(log_prob)) {
      ASSERT_NEAR(value, log_prob, 2e-6 + 4e-7 * std::abs(log_prob)) << c;
    } else {
      ASSERT_EQ(value, -kInfinity);
    }
  }
  EXPECT_NEAR(found.entropy, entropy, 3e-6 * (1 + entropy));
}

TEST_P(PosteriorTest, is_the_softmax_and_its_entropy) {
  const auto backend = GetParam().backend(2);
  for (int64_t n : {1, 2, 5, 16, 63, 64, 65, 300, 49157}) {
    for (float scale : {0.0f, 1.0f, 8.0f}) {
      Matrix logits = random_matrix(DType::f32, 1, n, 1, scale);
      if (n > 2) logits.set(0, n / 2, -kInfinity);
      const std::vector<int32_t> ids = all_ids(n);
      for (float temperature : {1.0f, 0.3f, 2.5f}) {
        expect_softmax(posterior(*backend, logits, {.temperature = temperature}, ids), logits,
                       temperature);
      }
    }
  }
}

TEST_P(PosteriorTest, temperature_zero_has_all_on_the_likeliest) {
  const auto backend = GetParam().backend();
  Matrix logits = random_matrix(DType::f32, 1, 200, 2);
  logits.set(0, 77, 9.0f);
  logits.set(0, 150, 9.0f);  // a tie: the lowest id
  for (float temperature : {0.0f, 1e-42f}) {
    const auto found =
        posterior(*backend, logits, {.temperature = temperature}, std::vector{3, 77, 150, 77});
    EXPECT_EQ(found, (Posterior{0, {-kInfinity, 0, -kInfinity, 0}}));
  }
}

TEST_P(PosteriorTest, a_low_temperature_has_all_but_nothing_elsewhere) {
  const auto backend = GetParam().backend();
  Matrix logits = random_matrix(DType::f32, 1, 200, 3);
  logits.set(0, 77, 9.0f);
  const auto found = posterior(*backend, logits, {.temperature = 1e-3f}, std::vector{77, 78});
  EXPECT_EQ(found.entropy, 0);
  EXPECT_EQ(found.log_probs[0], 0);
  EXPECT_LT(found.log_probs[1], -1000);
}

TEST_P(PosteriorTest, banned_ids_have_no_probability) {
  const auto backend = GetParam().backend();
  Matrix logits = random_matrix(DType::f32, 1, 90, 4);
  const std::vector<int32_t> banned{7, 8}, ids = all_ids(90);
  const auto found =
      posterior(*backend, logits, {.temperature = 1, .rules = {.banned = banned}}, ids);
  EXPECT_TRUE(logits.same(random_matrix(DType::f32, 1, 90, 4)));
  for (int32_t id : banned) logits.set(0, id, -kInfinity);
  expect_softmax(found, logits, 1);
}

TEST_P(PosteriorTest, survives_logits_that_are_no_numbers) {
  const auto backend = GetParam().backend();
  Matrix logits(DType::f32, 1, 100);
  const std::vector<int32_t> tokens{0, 77};
  for (float fill : {kNan, -kInfinity}) {
    for (int64_t c = 0; c < 100; ++c) logits.set(0, c, fill);
    EXPECT_EQ(posterior(*backend, logits, {.temperature = 1}, tokens),
              (Posterior{0, {0, -kInfinity}}));
    logits.set(0, 77, 1.0f);
    EXPECT_EQ(posterior(*backend, logits, {.temperature = 1}, tokens),
              (Posterior{0, {-kInfinity, 0}}));
  }
  logits.set(0, 77, kInfinity);
  EXPECT_EQ(posterior(*backend, logits, {.temperature = 1}, tokens),
            (Posterior{0, {-kInfinity, 0}}));
}

TEST_P(PosteriorTest, row_is_the_same_alone_and_among_others) {
  const auto one = GetParam().backend(1), three = GetParam().backend(3);
  const Matrix logits = random_matrix(DType::f32, 7, 49157, 5, 3.0f);
  const std::vector<int32_t> tokens{1, 49156, 30000};
  std::vector<Posterior> found(7, {-1, std::vector<float>(3)});
  std::vector<PosteriorRow> rows;
  for (int i = 0; i < 7; ++i) {
    const SampleRow draw{.row = i * 3 % 7, .temperature = 0.5f + 0.1f * static_cast<float>(i)};
    auto& out = found[static_cast<size_t>(i)];
    rows.push_back({draw, tokens, out.log_probs, &out.entropy});
  }
  ops::posterior(*three, logits, rows);
  for (size_t i = 0; i < 7; ++i) {
    EXPECT_EQ(posterior(*one, logits, rows[i].draw, tokens), found[i]) << i;
  }
}

TEST(Posterior, refuses_what_does_not_fit) {
  const auto backend = make_cpu_backend({.compute_type = ComputeType::float32, .num_threads = 1});
  const Matrix logits(DType::f32, 2, 10);
  float entropy = 0;
  std::vector<float> out(1);
  const std::vector<int32_t> good{9}, bad{10};
  const auto run = [&](const PosteriorRow& row) { ops::posterior(*backend, logits, {&row, 1}); };
  EXPECT_NO_THROW(run({{.row = 1}, good, out, &entropy}));
  EXPECT_THROW(run({{.row = 2}, good, out, &entropy}), InvalidArgument);
  EXPECT_THROW(run({{.row = 1}, bad, out, &entropy}), InvalidArgument);
  EXPECT_THROW(run({{.row = 1}, good, {}, &entropy}), InvalidArgument);
  EXPECT_THROW(run({{.row = 1}, good, out, nullptr}), InvalidArgument);
}

}  // namespace
}  // namespace medusa
