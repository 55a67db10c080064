#include <gtest/gtest.h>

#include <algorithm>

#include "decode/prompt_share.h"
#include "medusa/engine.h"
#include "model/kv_cache.h"
#include "model/model_impl.h"
#include "tiny_model.h"

namespace medusa {
namespace {

using testing::random_prompt;
using testing::run;
using testing::TinyModel;
using Ids = std::vector<int32_t>;

SamplingParams sampled(int seed, int max_tokens = 40) {
  SamplingParams params;
  params.max_tokens = max_tokens;
  params.temperature = 0.8f;
  params.seed = seed;
  return params;
}

size_t bytes_of(const Model& model, int pages) {
  return pages * KvCache::page_bytes(model.config(), model.impl()->backend->compute_dtype());
}

Ids alone(const Model& model, const Ids& prompt, const SamplingParams& params) {
  Engine engine(model, {}, Tree::root_only(), {.max_num_seqs = 1});
  const int64_t id = engine.submit(prompt, params);
  return run(engine).at(id);
}

std::vector<int> shares(const std::vector<int>& missing, int rows) {
  std::vector<Sequence> sequences(missing.size());
  std::vector<PlanEntry> entries(missing.size());
  std::vector<int> dealt;
  for (size_t i = 0; i < missing.size(); ++i) {
    sequences[i].tokens.resize(missing[i] + 10);
    entries[i].sequence = &sequences[i];
    entries[i].committed = 10;
  }
  share_rows(entries, rows);
  for (const PlanEntry& entry : entries) dealt.push_back(entry.num_rows);
  return dealt;
}

TEST(ShareRows, the_oldest_goes_on_and_short_prompts_pass) {
  EXPECT_EQ(shares({1000, 30, 500, 20}, 128), (std::vector<int>{64, 30, 14, 20}));
  EXPECT_EQ(shares({1000, 1000}, 100), (std::vector<int>{100, 0}));
  EXPECT_EQ(shares({10, 1000, 1000}, 100), (std::vector<int>{10, 90, 0}));
  EXPECT_EQ(shares({5, 6}, 100), (std::vector<int>{5, 6}));
  EXPECT_EQ(shares({50}, 1), (std::vector<int>{1}));
}

// What running answers get while a long prompt is computed.
TEST(Scheduler, a_long_prompt_stalls_nobody_longer_than_one_chunk) {
  TinyModel tiny;
  const Model model = tiny.load();
  std::mt19937 random(6);
  Engine engine(model, {}, Tree::root_only(), {.max_num_seqs = 3, .max_num_batched_tokens = 16});
  for (int i = 0; i < 2; ++i) engine.submit(random_prompt(random, 4, 101), sampled(i, 100));
  for (int i = 0; i < 3; ++i) engine.step();
  const int64_t late = engine.submit(random_prompt(random, 300, 101), sampled(9, 3));
  int steps = 0;
  for (bool begun = false; !begun; ++steps) {
    const auto outputs = engine.step();
    const auto is_late = [&](const StepOutput& output) { return output.request_id == late; };
    begun = std::ranges::any_of(outputs, is_late);
    EXPECT_EQ(outputs.size(), begun ? 3u : 2u);
  }
  EXPECT_EQ(steps, (300 + 13) / 14);  // 16 rows a step, two of them for the others
}

TEST(Scheduler, a_short_prompt_passes_a_long_one) {
  TinyModel tiny;
  const Model model = tiny.load();
  std::mt19937 random(6);
  Engine engine(model, {}, Tree::root_only(), {.max_num_seqs = 2, .max_num_batched_tokens = 32});
  engine.submit(random_prompt(random, 400, 101), sampled(0, 5));
  const int64_t brief = engine.submit(random_prompt(random, 10, 101), sampled(1, 5));
  const auto outputs = engine.step();
  ASSERT_EQ(outputs.size(), 1u);
  EXPECT_EQ(outputs[0].request_id, brief);
}

class Preemption : public ::testing::TestWithParam<bool> {};

// Six pages for five sequences that need up to four each.
TEST_P(Preemption, gives_the_tokens_of_unlimited_pages) {
  TinyModel tiny;
  const Model model = tiny.load();
  const Heads heads = tiny.random_heads(model, 4);
  std::mt19937 random(8);
  Engine engine(model, heads, Tree::stock("mc_sim_7b_63"),
                {.max_num_seqs = 5,
                 .max_model_len = 256,
                 .kv_cache_memory = bytes_of(model, 6),
                 .enable_prefix_caching = GetParam()});
  std::vector<Ids> prompts;
  std::vector<int64_t> ids;
  for (int i = 0; i < 5; ++i) {
    prompts.push_back(random_prompt(random, 40 + 9 * i, 101));
    ids.push_back(engine.submit(prompts[i], sampled(i, 150)));
  }
  const auto answers = run(engine);
  int64_t preemptions = 0;
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(answers.at(ids[i]), alone(model, prompts[i], sampled(i, 150))) << i;
    const Metrics metrics = engine.metrics(ids[i]);
    EXPECT_EQ(metrics.num_generated_tokens, 150);
    EXPECT_EQ(metrics.num_generated_tokens, 1 + metrics.num_steps + metrics.num_accepted_tokens);
    preemptions += metrics.num_preemptions;
  }
  EXPECT_EQ(engine.metrics(ids[0]).num_preemptions, 0);  // the oldest never gives way
  EXPECT_GT(preemptions, 0);
  EXPECT_EQ(engine.num_free_pages(), engine.num_pages());
}

INSTANTIATE_TEST_SUITE_P(prefix_caching, Preemption, ::testing::Bool());

struct SharedRun {
  std::map<int64_t, Ids> answers;
  int least_free = 0;
  int64_t cached = 0;
};

SharedRun run_shared(const Model& model, const std::vector<Ids>& prompts, bool caching) {
  Engine engine(model, {}, Tree::root_only(), {.enable_prefix_caching = caching});
  SharedRun result{{}, engine.num_pages(), 0};
  for (size_t i = 0; i < prompts.size(); ++i) {
    engine.submit(prompts[i], sampled(static_cast<int>(i), 20));
  }
  while (engine.has_unfinished()) {
    for (const StepOutput& output : engine.step()) {
      auto& answer = result.answers[output.request_id];
      answer.insert(answer.end(), output.tokens.begin(), output.tokens.end());
    }
    result.least_free = std::min(result.least_free, engine.num_free_pages());
  }
  for (size_t i = 0; i < prompts.size(); ++i) {
    result.cached += engine.metrics(static_cast<int64_t>(i)).num_cached_tokens;
  }
  EXPECT_EQ(engine.num_free_pages(), engine.num_pages());
  return result;
}

// Six prompts at once: 200 common tokens, then a few of their own.
TEST(PrefixCache, shared_prompts_share_pages_and_keep_their_answers) {
  TinyModel tiny;
  const Model model = tiny.load();
  std::mt19937 random(12);
  const Ids common = random_prompt(random, 200, 101);
  std::vector<Ids> prompts;
  for (int i = 0; i < 6; ++i) {
    const Ids own = random_prompt(random, 5 + i, 101);
    prompts.push_back(common);
    prompts.back().insert(prompts.back().end(), own.begin(), own.end());
  }
  const SharedRun with = run_shared(model, prompts, true);
  const SharedRun without = run_shared(model, prompts, false);
  EXPECT_EQ(with.answers, without.answers);
  EXPECT_EQ(with.cached, 5 * 192);
  EXPECT_EQ(without.cached, 0);
  EXPECT_GE(with.least_free, without.least_free + 5 * 3);
}

TEST(PrefixCache, a_conversation_finds_its_own_past) {
  TinyModel tiny;
  const Model model = tiny.load();
  std::mt19937 random(13);
  Engine engine(model, {}, Tree::root_only(), {});
  Ids turn = random_prompt(random, 100, 101);
  const int64_t first = engine.submit(turn, sampled(1, 60));
  const Ids answer = run(engine).at(first);
  turn.insert(turn.end(), answer.begin(), answer.end());
  const int64_t second = engine.submit(turn, sampled(2, 10));
  EXPECT_EQ(run(engine).at(second), alone(model, turn, sampled(2, 10)));
  EXPECT_EQ(engine.metrics(second).num_cached_tokens, 128);
}

TEST(PrefixCache, is_evicted_when_pages_are_needed) {
  TinyModel tiny;
  const Model model = tiny.load();
  std::mt19937 random(14);
  Engine engine(model, {}, Tree::root_only(),
                {.max_num_seqs = 1, .max_model_len = 256, .kv_cache_memory = bytes_of(model, 4)});
  const Ids a = random_prompt(random, 200, 101), b = random_prompt(random, 200, 101);
  const Ids expected = alone(model, a, sampled(3, 20));
  for (const Ids* prompt : {&a, &b, &a}) {
    const int64_t id = engine.submit(*prompt, sampled(3, 20));
    const Ids answer = run(engine).at(id);
    if (prompt == &a) {
      EXPECT_EQ(answer, expected);
    }
    EXPECT_EQ(engine.metrics(id).num_cached_tokens, 0);
  }
}

// Cancelling at every step of a run, while prompts are computed, waiting and decoding.
TEST(Scheduler, cancelling_at_any_moment_frees_the_pages) {
  TinyModel tiny;
  const Model model = tiny.load();
  const Heads heads = tiny.random_heads(model, 2);
  std::mt19937 random(4);
  Engine engine(model, heads, Tree::chain(2),
                {.max_num_seqs = 3,
                 .max_num_batched_tokens = 40,
                 .max_model_len = 192,
                 .kv_cache_memory = bytes_of(model, 4)});
  for (int steps = 0; steps < 40; ++steps) {
    std::vector<int64_t> ids;
    for (int i = 0; i < 5; ++i) {
      ids.push_back(engine.submit(random_prompt(random, 20 + 25 * i, 101), sampled(i, 60)));
    }
    for (int i = 0; i < steps; ++i) engine.step();
    for (const int64_t id : ids) engine.cancel(id);
    EXPECT_FALSE(engine.has_unfinished());
    EXPECT_TRUE(engine.step().empty());
    EXPECT_EQ(engine.num_free_pages(), engine.num_pages());
    for (const int64_t id : ids) engine.forget(id);
  }
}

}  // namespace
}  // namespace medusa
