#include "decode/tree_policy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "decode/tree_ladder.h"

namespace medusa {
namespace {

using Paths = std::vector<std::vector<int>>;

TEST(TreeLadder, rungs_are_the_most_probable_nodes) {
  const Tree tree({{0}, {1}, {0, 0}, {0, 1}});  // nodes 1, 2, 3, 4
  const std::vector<float> probability{1, 0.5f, 0.1f, 0.4f, 0.2f};
  const TreeLadder ladder(tree, probability, true);
  ASSERT_EQ(ladder.num_rungs(), 5);
  EXPECT_EQ(ladder.tree(0).size(), 1);
  EXPECT_EQ(ladder.tree(2).paths(), (Paths{{0}, {0, 0}}));
  EXPECT_TRUE(std::ranges::equal(ladder.nodes(2), std::vector<int>{0, 1, 3}));
  EXPECT_EQ(ladder.tree(3).paths(), (Paths{{0}, {0, 0}, {0, 1}}));
  EXPECT_EQ(ladder.tree(4).paths(), tree.paths());
}

TEST(TreeLadder, follows_the_given_order_where_nothing_was_measured) {
  const TreeLadder ladder(Tree(Paths{{0}, {0, 0}, {1}}), {}, true);
  EXPECT_EQ(ladder.tree(2).paths(), (Paths{{0}, {0, 0}}));
}

TEST(TreeLadder, puts_no_node_before_its_parent) {
  const TreeLadder ladder(Tree(Paths{{0}, {1}, {1, 0}}), std::vector<float>{1, 0.5f, 0.1f, 0.9f},
                          true);
  EXPECT_EQ(ladder.tree(1).paths(), (Paths{{0}}));
}

TEST(TreeLadder, pinned_it_is_all_or_nothing) {
  const TreeLadder ladder(Tree::stock("mc_sim_7b_63"), {}, false);
  ASSERT_EQ(ladder.num_rungs(), 2);
  EXPECT_EQ(ladder.tree(0).size(), 1);
  EXPECT_EQ(ladder.tree(1).size(), 64);
}

EngineOptions adaptive(std::vector<float> seconds, std::vector<float> probability = {}) {
  return {.adaptive = true,
          .step_seconds = std::move(seconds),
          .path_probability = std::move(probability)};
}

// One head: ranks 0 to 7, right in `right` · 2^-(rank + 1).
struct Fan {
  Tree tree{Paths{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}}};
  std::vector<float> probability{1};
  std::vector<Sequence> sequences;
  std::vector<Sequence*> drafting;

  Fan(int count, float right) : sequences(count) {
    for (int rank = 0; rank < 8; ++rank) probability.push_back(right /= 2);
    for (Sequence& sequence : sequences) {
      sequence.num_guesses = 1;
      drafting.push_back(&sequence);
    }
  }
  StepLoad load() const {
    return {.decoding = static_cast<int>(sequences.size()), .max_rows = 256};
  }
  std::vector<int> sizes(const TreePolicy& policy) const {
    std::vector<int> all;
    for (const Sequence& sequence : sequences) all.push_back(policy.tree(sequence.rung).size());
    return all;
  }
};

// 8 rows cost what one costs, then each costs an eighth more.
std::vector<float> stairs() {
  std::vector<float> seconds;
  for (int rows = 1; rows <= 64; ++rows) seconds.push_back(rows <= 8 ? 1 : rows / 8.0f);
  return seconds;
}

TEST(TreePolicy, pinned_it_takes_the_whole_tree) {
  Fan fan(2, 1);
  TreePolicy policy({}, fan.tree);
  policy.choose(fan.drafting, fan.load());
  EXPECT_EQ(fan.sizes(policy), (std::vector<int>{9, 9}));
}

TEST(TreePolicy, free_rows_are_used_and_dear_ones_not) {
  Fan fan(1, 1);
  TreePolicy policy(adaptive(stairs(), fan.probability), fan.tree);
  policy.choose(fan.drafting, fan.load());
  EXPECT_EQ(fan.sizes(policy), (std::vector<int>{8}));
}

TEST(TreePolicy, trees_shrink_as_load_grows_down_to_plain_decoding) {
  int before = 100;
  for (const int count : {1, 2, 4, 8, 16}) {
    Fan fan(count, 1);
    TreePolicy policy(adaptive(stairs(), fan.probability), fan.tree);
    policy.choose(fan.drafting, fan.load());
    const std::vector<int> sizes = fan.sizes(policy);
    const int largest = *std::ranges::max_element(sizes);
    EXPECT_LE(largest, before);
    before = largest;
  }
  EXPECT_EQ(before, 1);
}

TEST(TreePolicy, heads_that_cost_more_than_they_bring_do_not_run) {
  Fan fan(1, 0.1f);
  TreePolicy policy(adaptive(stairs(), fan.probability), fan.tree);
  EXPECT_EQ(policy.choose_heads(fan.drafting, fan.load()), 1);  // not measured yet: free
  policy.observe_heads(1, 0.5);
  EXPECT_EQ(policy.choose_heads(fan.drafting, fan.load()), 0);
  EXPECT_EQ(fan.sizes(policy), (std::vector<int>{1}));
}

TEST(TreePolicy, rows_beyond_the_limit_are_not_taken) {
  Fan fan(4, 1);
  TreePolicy policy(adaptive(std::vector<float>(64, 1.0f), fan.probability), fan.tree);
  StepLoad load = fan.load();
  load.max_rows = 10;
  policy.choose(fan.drafting, load);
  const std::vector<int> sizes = fan.sizes(policy);
  EXPECT_LE(std::accumulate(sizes.begin(), sizes.end(), 0), 10);
  EXPECT_GE(std::accumulate(sizes.begin(), sizes.end(), 0), 9);
}

// The step's tree with `accepted` of its first level's nodes (0: none).
void observe(TreePolicy& policy, Sequence& sequence, int accepted) {
  PlanEntry entry;
  entry.sequence = &sequence;
  entry.tree = &policy.tree(sequence.rung);
  entry.num_rows = entry.tree->size();
  entry.accepted_rows = {0};
  if (accepted > 0) entry.accepted_rows.push_back(accepted);
  policy.observe(entry);
}

TEST(TreePolicy, what_is_seen_outweighs_what_was_measured_and_is_probed_now_and_then) {
  Fan fan(1, 1);
  std::vector<float> seconds;
  for (int rows = 1; rows <= 16; ++rows) seconds.push_back(1 + 0.1f * static_cast<float>(rows));
  TreePolicy policy(adaptive(seconds, fan.probability), fan.tree);
  policy.choose(fan.drafting, fan.load());
  EXPECT_GT(policy.tree(fan.sequences[0].rung).size(), 1);
  int steps = 0;
  for (; fan.sequences[0].rung > 0 && steps < 1000; ++steps) {
    observe(policy, fan.sequences[0], 0);
    policy.choose(fan.drafting, fan.load());
  }
  EXPECT_LT(steps, 200);
  int probes = 0;
  for (int i = 0; i < 4096; ++i) probes += policy.choose_heads(fan.drafting, fan.load()) > 0;
  EXPECT_GE(probes, 3);
  EXPECT_LE(probes, 8);
  // Drafts are right again: probes find out.
  int drafted = 0;
  for (int i = 0; i < 20000 && drafted < 100; ++i) {
    if (policy.choose_heads(fan.drafting, fan.load()) == 0) continue;
    policy.choose(fan.drafting, fan.load());
    observe(policy, fan.sequences[0], 1);
    ++drafted;
  }
  EXPECT_EQ(drafted, 100);
}

TEST(TreePolicy, a_sequence_whose_drafts_fail_gets_fewer_nodes_than_another) {
  Fan fan(2, 1);
  std::vector<float> seconds;
  for (int rows = 1; rows <= 32; ++rows) seconds.push_back(1 + 0.04f * static_cast<float>(rows));
  TreePolicy policy(adaptive(seconds, fan.probability), fan.tree);
  for (int i = 0; i < 60; ++i) {
    policy.choose(fan.drafting, fan.load());
    if (fan.sequences[0].rung > 0) observe(policy, fan.sequences[0], 1);
    if (fan.sequences[1].rung > 0) observe(policy, fan.sequences[1], 0);
  }
  const std::vector<int> sizes = fan.sizes(policy);
  EXPECT_GT(sizes[0], sizes[1]);
}

}  // namespace
}  // namespace medusa
