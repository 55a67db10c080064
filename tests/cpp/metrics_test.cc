#include <gtest/gtest.h>

#include <random>

#include "medusa/engine.h"
#include "tiny_model.h"

namespace medusa {
namespace {

using testing::random_prompt;
using testing::run;
using testing::TinyModel;

TEST(Metrics, counts_every_request_and_all_together) {
  TinyModel tiny;
  const Model model = tiny.load();
  const Heads heads = tiny.random_heads(model, 4);
  const Tree tree = Tree::stock("mc_sim_7b_63");
  Engine engine(model, heads, tree, {.max_num_seqs = 2});
  std::mt19937 random(6);
  std::vector<int64_t> ids;
  for (int i = 0; i < 5; ++i) {
    const SamplingParams params{.max_tokens = 40,
                                .temperature = i % 2 == 0 ? 0.0f : 0.8f,
                                .seed = static_cast<uint64_t>(i),
                                .speculative = i != 3};
    ids.push_back(engine.submit(random_prompt(random, 10 + i, 101), params));
  }
  int64_t passes = 0;
  for (; engine.has_unfinished(); ++passes) engine.step();
  const Metrics all = engine.metrics();
  EXPECT_EQ(all.num_requests, 5);
  EXPECT_EQ(all.num_prompt_tokens, 10 + 11 + 12 + 13 + 14);
  EXPECT_EQ(all.num_generated_tokens, 5 * 40);
  EXPECT_EQ(all.num_forward_passes, passes);
  int64_t drafts = 0, drafted = 0, accepted = 0, steps = 0, by_rank = 0;
  std::vector<int64_t> ranks(all.rank_histogram.size());
  for (const int64_t id : ids) {
    const Metrics one = engine.metrics(id);
    EXPECT_EQ(one.num_requests, 1);
    EXPECT_LE(one.num_generated_tokens, 1 + one.num_steps + one.num_accepted_tokens);
    EXPECT_GE(one.num_generated_tokens, one.num_steps + one.num_accepted_tokens);
    EXPECT_EQ(one.num_draft_tokens, one.num_drafts * (tree.size() - 1));
    EXPECT_GE(one.num_forward_passes, one.num_steps + 1);
    EXPECT_GT(one.step_times.forward, 0);
    drafts += one.num_drafts;
    drafted += one.num_draft_tokens;
    accepted += one.num_accepted_tokens;
    steps += one.num_steps;
    for (size_t i = 0; i < ranks.size(); ++i) ranks[i] += one.rank_histogram[i];
    engine.forget(id);
  }
  EXPECT_EQ(all.num_drafts, drafts);
  EXPECT_EQ(all.num_draft_tokens, drafted);
  EXPECT_EQ(all.num_accepted_tokens, accepted);
  EXPECT_EQ(all.num_steps, steps);
  EXPECT_EQ(all.rank_histogram, ranks);
  for (const int64_t count : ranks) by_rank += count;
  EXPECT_EQ(by_rank, accepted);
  EXPECT_GT(accepted, 0);
  EXPECT_GT(all.step_times.heads, 0);
}

TEST(Metrics, counts_a_shared_pass_once) {
  TinyModel tiny;
  const Model model = tiny.load();
  Engine engine(model, {}, Tree::root_only(), {.max_num_seqs = 2});
  const std::vector<int32_t> prompt{1, 2, 3};
  const int64_t first = engine.submit(prompt, {.max_tokens = 4});
  const int64_t second = engine.submit(prompt, {.max_tokens = 4});
  run(engine);
  const double alone = engine.metrics(first).step_times.forward;
  EXPECT_EQ(engine.metrics(second).step_times.forward, alone);
  EXPECT_EQ(engine.metrics().step_times.forward, alone);
  EXPECT_EQ(engine.metrics().num_forward_passes, 4);
}

}  // namespace
}  // namespace medusa
