#include "decode/typical.h"

#include <gtest/gtest.h>

#include <random>

#include "medusa/error.h"
#include "tiny_model.h"

namespace medusa {
namespace {

using testing::random_prompt;
using testing::run;
using testing::TinyModel;

constexpr EngineOptions kTypical{.max_num_seqs = 3, .acceptance_method = AcceptanceMethod::typical};

// Root 0 with children 1, 2, 3; 4 below 1, 5 and 6 below 2.
struct Judged {
  std::vector<int> parents{-1, 0, 0, 0, 1, 2, 2}, depths{0, 1, 1, 1, 2, 2, 2};
  std::vector<float> log_probs{0, -1, -1, -1, -1, -1, -1}, entropies{1, 1, 1, 1, 1, 1, 1};
  std::vector<float> scores = std::vector<float>(7);
  TypicalRule rule{-2.0f, -0.5f};

  int path_end() { return typical_path_end(rule, {parents, depths, log_probs, entropies}, scores); }
};

TEST(TypicalRule, equality_is_not_enough) {
  const TypicalRule rule{-2.0f, -0.5f};
  EXPECT_FALSE(rule.accepts(-2.0f, 1.0f));  // the threshold itself
  EXPECT_TRUE(rule.accepts(-1.75f, 1.0f));
  EXPECT_FALSE(rule.accepts(-3.5f, 3.0f));  // alpha · exp(-entropy) itself
  EXPECT_TRUE(rule.accepts(-3.25f, 3.0f));  // flat distributions ask for less
  EXPECT_FALSE(rule.accepts(kRejected, 3.0f));
}

TEST(TypicalRule, is_known_at_compile_time) {
  static_assert(TypicalRule{-2.0f, -0.5f}.accepts(-1.0f, 1.0f));
}

TEST(TypicalPath, nothing_accepted_leaves_the_root) {
  Judged judged;
  for (int child : {1, 2, 3}) judged.log_probs[child] = -5;
  EXPECT_EQ(judged.path_end(), 0);
}

TEST(TypicalPath, the_longest_wins_over_the_likeliest) {
  Judged judged;
  judged.log_probs = {0, -0.01f, -1.9f, -1, -5, -1.9f, -5};
  EXPECT_EQ(judged.path_end(), 5);
}

TEST(TypicalPath, of_the_longest_the_likeliest_then_the_first) {
  Judged judged;
  judged.log_probs = {0, -1, -0.5f, -1, -0.25f, -1, -0.5f};
  EXPECT_EQ(judged.path_end(), 6);  // -1.0 against -1.25 and -1.5
  judged.log_probs = {0, -1, -0.75f, -1, -0.5f, -1, -0.75f};
  EXPECT_EQ(judged.path_end(), 4);  // -1.5 twice
}

TEST(TypicalPath, reads_nothing_below_a_rejected_node) {
  Judged judged;
  judged.log_probs = {0, -5, -5, -1, 0, 0, 0};
  EXPECT_EQ(judged.path_end(), 3);
  EXPECT_EQ(judged.scores[4], kRejected);
}

std::vector<int32_t> answer(Engine& engine, std::span<const int32_t> prompt,
                            const SamplingParams& params) {
  const int64_t id = engine.submit(prompt, params);
  return run(engine).at(id);
}

TEST(TypicalEngine, at_temperature_zero_is_exact) {
  TinyModel tiny;
  const Model model = tiny.load();
  const Heads heads = tiny.random_heads(model, 4);
  std::mt19937 random(3);
  Engine plain(model, {}, Tree::root_only(), {});
  for (const Tree& tree : {Tree::chain(4), Tree::stock("mc_sim_7b_63")}) {
    Engine typical(model, heads, tree, kTypical);
    for (int size : {1, 20, 130}) {
      const auto prompt = random_prompt(random, size, 101);
      for (float temperature : {0.0f, 1e-6f}) {
        EXPECT_EQ(answer(typical, prompt, {.max_tokens = 60, .temperature = temperature}),
                  answer(plain, prompt, {.max_tokens = 60}));
      }
    }
  }
}

TEST(TypicalEngine, rules_read_the_path_of_each_node) {
  TinyModel tiny;
  const Model model = tiny.load();
  const Heads heads = tiny.random_heads(model, 4);
  std::mt19937 random(3);
  Engine plain(model, {}, Tree::root_only(), {});
  Engine typical(model, heads, Tree::stock("mc_sim_7b_63"), kTypical);
  for (int i = 0; i < 6; ++i) {
    const auto prompt = random_prompt(random, 10, 101);
    SamplingParams params{.max_tokens = 60, .repetition_penalty = 1.3f};
    params.presence_penalty = 0.5f;
    params.frequency_penalty = 0.2f * static_cast<float>(i);
    params.logit_bias = {{i, 3.0f}, {50, -2.0f}};
    params.bad_words = {{i, 7}, {9}};
    EXPECT_EQ(answer(typical, prompt, params), answer(plain, prompt, params)) << i;
  }
}

TEST(TypicalEngine, company_and_prompts_in_the_same_step_do_not_matter) {
  TinyModel tiny;
  const Model model = tiny.load();
  const Heads heads = tiny.random_heads(model, 4);
  std::mt19937 random(4);
  Engine alone(model, heads, Tree::stock("mc_sim_7b_63"), kTypical);
  EngineOptions crowded = kTypical;
  crowded.max_num_seqs = 4;
  crowded.max_num_batched_tokens = 4 * 64;
  Engine together(model, heads, Tree::stock("mc_sim_7b_63"), crowded);
  std::vector<std::vector<int32_t>> expected;
  std::vector<int64_t> ids;
  for (int i = 0; i < 9; ++i) {  // long prompts start while short ones decode
    const auto prompt = random_prompt(random, i % 2 == 0 ? 5 : 300, 101);
    const SamplingParams params{.max_tokens = 20 + 3 * i, .temperature = 0.5f * (i % 4)};
    expected.push_back(answer(alone, prompt, params));
    ids.push_back(together.submit(prompt, params));
  }
  const auto answers = run(together);
  for (size_t i = 0; i < 9; ++i) EXPECT_EQ(answers.at(ids[i]), expected[i]) << i;
}

TEST(TypicalEngine, plain_requests_are_sampled_as_ever) {
  TinyModel tiny;
  const Model model = tiny.load();
  const Heads heads = tiny.random_heads(model, 4);
  Engine typical(model, heads, Tree::chain(4), kTypical), plain(model, {}, Tree::root_only(), {});
  const std::vector<int32_t> prompt{3, 1, 4};
  const SamplingParams params{
      .max_tokens = 40, .temperature = 1, .top_p = 0.9f, .seed = 5, .speculative = false};
  EXPECT_EQ(answer(typical, prompt, params), answer(plain, prompt, params));
  Engine no_heads(model, {}, Tree::root_only(), kTypical);
  SamplingParams speculative = params;
  speculative.speculative = true;
  EXPECT_EQ(answer(no_heads, prompt, speculative), answer(plain, prompt, params));
}

TEST(TypicalEngine, min_tokens_bans_stop_tokens_in_guesses_too) {
  TinyModel tiny;
  const Model model = tiny.load();
  const Heads heads = tiny.random_heads(model, 4);
  Engine typical(model, heads, Tree::stock("mc_sim_7b_63"),
                 {.acceptance_method = AcceptanceMethod::typical, .posterior_threshold = 1e-6f});
  SamplingParams params{.max_tokens = 60, .temperature = 3};
  for (int32_t id = 0; id < 50; ++id) params.stop_token_ids.push_back(id);
  params.min_tokens = 40;
  const auto tokens = answer(typical, std::vector<int32_t>{1, 2}, params);
  ASSERT_GE(tokens.size(), 40u);
  for (size_t i = 0; i < 40; ++i) EXPECT_GE(tokens[i], 50);
}

TEST(TypicalEngine, refuses_thresholds_and_parameters_without_meaning) {
  TinyModel tiny;
  const Model model = tiny.load();
  const Heads heads = tiny.random_heads(model, 4);
  for (float bad : {0.0f, 1.0f, -1.0f, std::nanf("")}) {
    EngineOptions options = kTypical;
    options.posterior_threshold = bad;
    EXPECT_THROW(Engine(model, heads, Tree::chain(4), options), InvalidArgument);
    options = kTypical;
    options.posterior_alpha = bad;
    EXPECT_THROW(Engine(model, heads, Tree::chain(4), options), InvalidArgument);
  }
  Engine engine(model, heads, Tree::chain(4), kTypical);
  const std::vector<int32_t> prompt{1};
  EXPECT_THROW(engine.submit(prompt, {.temperature = 1, .top_p = 0.9f}), InvalidArgument);
  EXPECT_THROW(engine.submit(prompt, {.temperature = 1, .top_k = 5}), InvalidArgument);
  EXPECT_THROW(engine.submit(prompt, {.temperature = 1, .min_p = 0.1f}), InvalidArgument);
  EngineOptions synthetic = kTypical;
  synthetic.synthetic_acceptance_length = 2;
  EXPECT_THROW(Engine(model, heads, Tree::chain(4), synthetic), InvalidArgument);
}

}  // namespace
}  // namespace medusa
