#include <gtest/gtest.h>

#include <cmath>

#include "medusa/error.h"
#include "sampling_case.h"

namespace medusa {
namespace {

class LogitsRulesTest : public testing::TestWithParam<KernelCase> {};
MEDUSA_FOR_EVERY_ISA(LogitsRulesTest);

// A bad word ends at the node: its tokens lie in the answer, on the path, or across both.
TEST_P(LogitsRulesTest, bad_words_are_met_along_answer_and_path) {
  const auto backend = GetParam().backend();
  Matrix logits(DType::f32, 1, 40);
  logits.set(0, 7, 1.0f);
  const std::vector<std::vector<int32_t>> words = {{1, 2, 3, 7}};
  const auto drawn = [&](const std::vector<int32_t>& answer, const std::vector<int32_t>& path) {
    return sample(*backend, logits,
                  {.rules = {.bad_words = words, .answer = answer, .path = path}});
  };
  EXPECT_EQ(drawn({1, 2, 3}, {}), 0);
  EXPECT_EQ(drawn({1, 2}, {3}), 0);
  EXPECT_EQ(drawn({}, {9, 1, 2, 3}), 0);
  EXPECT_EQ(drawn({1, 2}, {}), 7);
  EXPECT_EQ(drawn({2, 3}, {}), 7);
  EXPECT_EQ(drawn({1, 2, 3}, {4}), 7);
  EXPECT_EQ(drawn({}, {}), 7);
}

TEST_P(LogitsRulesTest, penalties_count_answer_and_path_once_each) {
  const auto backend = GetParam().backend();
  Matrix logits(DType::f32, 1, 40);
  logits.set(0, 5, 4.0f);
  logits.set(0, 6, 1.5f);
  const std::vector<int32_t> five = {5}, fives = {5, 5}, other = {9};
  const auto drawn = [&](LogitsRules rules) { return sample(*backend, logits, {.rules = rules}); };
  // 4 - 1 · 2 > 1.5, 4 - 1 · 3 < 1.5; presence counts once, the prompt not at all.
  EXPECT_EQ(drawn({.frequency_penalty = 1, .prompt = five, .answer = fives}), 5);
  EXPECT_EQ(drawn({.frequency_penalty = 1, .answer = fives, .path = five}), 6);
  EXPECT_EQ(drawn({.presence_penalty = 2, .prompt = five, .answer = fives, .path = five}), 5);
  EXPECT_EQ(drawn({.presence_penalty = 2.6f, .prompt = fives, .answer = other}), 5);
  EXPECT_EQ(drawn({.presence_penalty = 2.6f, .path = five}), 6);
  // 4 / 2 > 1.5 > 4 / 3, however often it came.
  EXPECT_EQ(drawn({.repetition_penalty = 2, .prompt = fives, .answer = five, .path = fives}), 5);
  EXPECT_EQ(drawn({.repetition_penalty = 3, .prompt = five}), 6);
  EXPECT_EQ(drawn({.repetition_penalty = 3, .path = five}), 6);
}

TEST_P(LogitsRulesTest, logprobs_are_those_of_the_softmax) {
  const auto backend = GetParam().backend(2);
  for (int64_t n : {2, 65, 1000, 49157}) {
    Matrix logits = random_matrix(DType::f32, 3, n, 9, 4.0f);
    for (int64_t c = 0; c < n; c += 2) logits.set(1, c, 1.25f);  // ties
    for (int64_t row = 0; row < 3; ++row) {
      const std::vector<int32_t> order = by_value(logits, row);
      double sum = 0;
      for (int64_t c = 0; c < n; ++c) sum += std::exp(double{logits.at(row, c)});
      const auto token = static_cast<int32_t>(n / 2);
      std::vector<TokenLogprob> out(static_cast<size_t>(std::min<int64_t>(n, kMaxTopK)) + 1);
      const LogprobRow asked{.row = row, .token = token, .out = out};
      ops::logprobs(*backend, logits, {&asked, 1});
      EXPECT_EQ(out[0].id, token);
      EXPECT_EQ(order[static_cast<size_t>(out[0].rank) - 1], token);
      for (size_t i = 0; i < out.size(); ++i) {
        if (i > 0) {
          EXPECT_EQ(out[i].id, order[i - 1]);
          EXPECT_EQ(out[i].rank, static_cast<int32_t>(i));
        }
        EXPECT_NEAR(out[i].logprob, logits.at(row, out[i].id) - std::log(sum), 2e-5);
      }
    }
  }
}

TEST_P(LogitsRulesTest, rules_and_logprobs_are_the_same_alone_and_among_others) {
  const auto one = GetParam().backend(1), three = GetParam().backend(3);
  const Matrix logits = random_matrix(DType::f32, 6, 4999, 10, 3.0f);
  const std::vector<int32_t> tokens = by_value(logits, 2);
  const std::vector<std::pair<int32_t, float>> bias = {{tokens[3], 2.0f}, {tokens[0], -3.0f}};
  const std::vector<std::vector<int32_t>> words = {{tokens[1]}, {tokens[0], tokens[2]}};
  std::vector<SampleRow> rows;
  std::vector<TokenLogprob> together(6 * 4), alone(4);
  std::vector<LogprobRow> asked;
  for (int i = 0; i < 6; ++i) {
    const auto cut = std::span<const int32_t>(tokens).first(static_cast<size_t>(i) * 30);
    rows.push_back({.row = 5 - i,
                    .temperature = i % 2 == 0 ? 0.0f : 1.1f,
                    .seed = 77,
                    .position = i,
                    .rules = {.bad_words = words,
                              .bias = bias,
                              .repetition_penalty = 1.0f + 0.2f * static_cast<float>(i),
                              .frequency_penalty = 0.3f,
                              .prompt = cut,
                              .answer = cut.first(cut.size() / 2)}});
    asked.push_back({5 - i, tokens[4], std::span(together).subspan(static_cast<size_t>(i) * 4, 4)});
  }
  std::vector<int32_t> ids(6);
  ops::sample(*three, ids, logits, rows);
  ops::logprobs(*three, logits, asked);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(sample(*one, logits, rows[i]), ids[i]);
    const LogprobRow again{asked[i].row, asked[i].token, alone};
    ops::logprobs(*one, logits, {&again, 1});
    for (size_t k = 0; k < 4; ++k) {
      EXPECT_EQ(alone[k].id, asked[i].out[k].id);
      EXPECT_EQ(alone[k].logprob, asked[i].out[k].logprob);
    }
  }
}

TEST_P(LogitsRulesTest, the_door_refuses_ids_beyond_the_vocabulary) {
  const auto backend = GetParam().backend();
  const Matrix logits = random_matrix(DType::f32, 1, 30, 11);
  const std::vector<int32_t> beyond = {30};
  const std::vector<std::vector<int32_t>> words = {{1, 30}}, empty = {{}};
  EXPECT_THROW(sample(*backend, logits, {.rules = {.allowed = beyond}}), InvalidArgument);
  EXPECT_THROW(sample(*backend, logits, {.rules = {.banned = beyond}}), InvalidArgument);
  EXPECT_THROW(sample(*backend, logits, {.rules = {.bad_words = words}}), InvalidArgument);
  EXPECT_THROW(sample(*backend, logits, {.rules = {.bad_words = empty}}), InvalidArgument);
  EXPECT_THROW(sample(*backend, logits, {.rules = {.path = beyond}}), InvalidArgument);
  std::vector<TokenLogprob> out(66);
  const LogprobRow many{0, 3, out}, none{0, 3, {}}, far{0, 30, std::span(out).first(1)};
  for (const LogprobRow& row : {many, none, far}) {
    EXPECT_THROW(ops::logprobs(*backend, logits, {&row, 1}), InvalidArgument);
  }
}

}  // namespace
}  // namespace medusa
