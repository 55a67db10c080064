#include <algorithm>
#include <cmath>

#include "device_case.h"

namespace medusa {
namespace {

class CudaSamplingTest : public DeviceTest {
 protected:
  const std::shared_ptr<Backend> cpu =
      make_cpu_backend({.compute_type = ComputeType::float32, .num_threads = 1});
};
MEDUSA_FOR_EVERY_DEVICE_CASE(CudaSamplingTest);

Matrix logits_of(int64_t rows, int64_t vocab) {
  Matrix logits = random_matrix(DType::f32, rows, vocab, 3, 2.0f);
  if (vocab > 20) {
    logits.set(0, 5, NAN);
    logits.set(0, 7, logits.view().row<float>(0)[11]);  // a tie
    logits.set(rows - 1, vocab - 1, -INFINITY);
  }
  return logits;
}

std::vector<int32_t> best_first(const Matrix& logits, int64_t row) {
  std::vector<int32_t> ids(static_cast<size_t>(logits.view().cols));
  std::iota(ids.begin(), ids.end(), 0);
  const auto value = [&](int32_t id) {
    const double v = logits.at(row, id);
    return std::isnan(v) ? -INFINITY : v;
  };
  std::stable_sort(ids.begin(), ids.end(),
                   [&](int32_t a, int32_t b) { return value(a) > value(b); });
  return ids;
}

SampleRow row_for(int64_t row, float temperature) {
  return {.row = row, .temperature = temperature, .seed = 77, .position = 1000 + row};
}

// The noise is the CPU's but for the last bits of its logarithms: over rows this random no draw is
// so close that they would decide.
TEST_P(CudaSamplingTest, draws_what_the_cpu_draws) {
  for (const auto& [rows, vocab] : {std::pair<int64_t, int64_t>{8, 1},
                                    {8, 7},
                                    {8, 101},
                                    {1, 4096},
                                    {8, 9001},
                                    {64, 33},
                                    {200, 101}}) {
    const Matrix logits = logits_of(rows, vocab);
    const Resident in(*backend, logits);
    for (const float temperature : {0.0f, 0.7f, 1.5f, 1e-40f}) {
      std::vector<SampleRow> asked;
      for (int64_t r = rows - 1; r >= 0; --r) asked.push_back(row_for(r, temperature));
      std::vector<int32_t> found(asked.size()), expected(asked.size());
      ops::sample(*backend, found, in, asked);
      ops::sample(*cpu, expected, logits, asked);
      EXPECT_EQ(found, expected) << vocab << " at " << temperature;
    }
  }
}

TEST_P(CudaSamplingTest, a_draw_depends_on_its_own_row_only) {
  const Matrix logits = logits_of(64, 300);
  const Resident in(*backend, logits);
  std::vector<SampleRow> asked;
  for (int64_t r = 0; r < 64; ++r) asked.push_back(row_for(r, 1.0f));
  asked[20].top_k = 5;  // goes to the host, its neighbours do not
  asked[21].rules.banned = {};
  std::vector<int32_t> all(64), one(1);
  ops::sample(*backend, all, in, asked);
  for (const size_t r : {0, 19, 20, 21, 63}) {
    ops::sample(*backend, one, in, std::span(asked).subspan(r, 1));
    EXPECT_EQ(one[0], all[r]) << r;
  }
}

TEST_P(CudaSamplingTest, filters_and_rules_are_those_of_the_cpu) {
  const Matrix logits = logits_of(6, 500);
  const Resident in(*backend, logits);
  const std::vector<int32_t> banned = best_first(logits, 5);
  std::vector<SampleRow> asked;
  for (int64_t r = 0; r < 6; ++r) asked.push_back(row_for(r, 0.9f));
  asked[1].top_k = 4;
  asked[2].top_p = 0.5f;
  asked[3].min_p = 0.3f;
  asked[5].temperature = 0;
  asked[5].rules.banned = std::span(banned).first(3);
  std::vector<int32_t> found(6), expected(6);
  ops::sample(*backend, found, in, asked);
  ops::sample(*cpu, expected, logits, asked);
  EXPECT_EQ(found, expected);
  EXPECT_EQ(found[5], banned[3]);
}

TEST_P(CudaSamplingTest, posterior_is_the_softmax) {
  const std::vector<int32_t> tokens = {0, 6, 100};
  for (const float temperature : {0.0f, 0.8f}) {
    const Matrix logits = random_matrix(DType::f32, 3, 1500, 9, 2.0f);
    const Resident in(*backend, logits);
    std::vector<std::vector<float>> log_probs(3, std::vector<float>(3)), wanted = log_probs;
    std::vector<float> entropies(3), wanted_entropies(3);
    const std::vector<int32_t> banned = {6};
    const auto rows_into = [&](auto& probs, auto& entropy) {
      std::vector<PosteriorRow> rows;
      for (size_t r = 0; r < 3; ++r) {
        rows.push_back({.draw = row_for(static_cast<int64_t>(r), temperature),
                        .tokens = tokens,
                        .log_probs = probs[r],
                        .entropy = &entropy[r]});
      }
      rows[1].draw.rules.banned = banned;
      return rows;
    };
    ops::posterior(*backend, in, rows_into(log_probs, entropies));
    ops::posterior(*cpu, logits, rows_into(wanted, wanted_entropies));
    for (size_t r = 0; r < 3; ++r) {
      EXPECT_NEAR(entropies[r], wanted_entropies[r], 2e-5);
      for (size_t i = 0; i < 3; ++i) {
        if (std::isinf(wanted[r][i])) {
          EXPECT_EQ(log_probs[r][i], wanted[r][i]);
        } else {
          EXPECT_NEAR(log_probs[r][i], wanted[r][i], 2e-5);
        }
      }
    }
  }
}

// In float64, of many rows over odd vocabularies.
TEST_P(CudaSamplingTest, posterior_of_many_rows_is_the_softmax) {
  for (const auto& [count, vocab] : {std::pair<int64_t, int64_t>{1, 1}, {64, 33}, {200, 257}}) {
    const Matrix logits = random_matrix(DType::f32, count, vocab, 9, 2.0f);
    const Resident in(*backend, logits);
    const std::vector<int32_t> token = {static_cast<int32_t>(vocab - 1)};
    std::vector<float> found(static_cast<size_t>(count)), entropies(found.size());
    std::vector<PosteriorRow> rows;
    for (int64_t r = 0; r < count; ++r) {
      rows.push_back({.draw = row_for(r, 0.8f),
                      .tokens = token,
                      .log_probs = std::span(found).subspan(static_cast<size_t>(r), 1),
                      .entropy = &entropies[static_cast<size_t>(r)]});
    }
    ops::posterior(*backend, in, rows);
    for (int64_t r = 0; r < count; ++r) {
      double sum = 0, entropy = 0;
      for (int64_t i = 0; i < vocab; ++i) sum += std::exp(logits.at(r, i) / 0.8);
      const auto log_prob = [&](int64_t i) { return logits.at(r, i) / 0.8 - std::log(sum); };
      for (int64_t i = 0; i < vocab; ++i) entropy -= std::exp(log_prob(i)) * log_prob(i);
      ASSERT_NEAR(found[static_cast<size_t>(r)], log_prob(vocab - 1), 2e-5) << r;
      ASSERT_NEAR(entropies[static_cast<size_t>(r)], entropy, 2e-5) << r;
    }
  }
}

TEST_P(CudaSamplingTest, logprobs_are_those_of_the_cpu) {
  const Matrix logits = logits_of(2, 101);
  const Resident in(*backend, logits);
  std::vector<TokenLogprob> found(4), expected(4);
  const std::vector<LogprobRow> asked = {{1, 9, found}}, same = {{1, 9, expected}};
  ops::logprobs(*backend, in, asked);
  ops::logprobs(*cpu, logits, same);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(found[i].id, expected[i].id);
    EXPECT_EQ(found[i].logprob, expected[i].logprob);
  }
}

}  // namespace
}  // namespace medusa
