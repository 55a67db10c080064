#include "decode/draft.h"

#include <gtest/gtest.h>

#include "decode/accept.h"
#include "model/model_impl.h"
#include "tiny_model.h"

namespace medusa {
namespace {

using Ids = std::vector<int32_t>;

TEST(Draft, lays_trees_and_prompt_chunks_out_as_one_ragged_batch) {
  testing::TinyModel tiny;
  const Model model = tiny.load();
  KvCache cache(*model.impl()->backend, model.config(), DType::bf16, 2, 4, 128);
  const Tree tree({{0}, {1}, {0, 1}});
  Sequence decoding, prompting;
  decoding.slot = 0;
  decoding.tokens = {7, 8, 9};
  decoding.guesses = {20, 21, 30, 31};  // two heads, two guesses each
  prompting.slot = 1;
  prompting.tokens = {1, 2, 3, 4, 5};

  StepPlan plan;
  plan.entries.resize(2);
  plan.add() = {.sequence = &decoding,
                .tree = &tree,
                .committed = 2,
                .num_rows = 4,
                .num_logits_rows = 4,
                .accepted_rows = {}};
  plan.add() = {.sequence = &prompting,
                .committed = 2,
                .num_rows = 3,
                .num_logits_rows = 1,
                .accepted_rows = {}};
  RowBatch batch;
  Ids logits_rows;
  draft(plan, cache, 2, batch, logits_rows);

  EXPECT_EQ(batch.tokens, (Ids{9, 20, 21, 31, 3, 4, 5}));
  EXPECT_EQ(batch.positions, (Ids{2, 3, 3, 4, 2, 3, 4}));
  EXPECT_EQ(batch.parents, (Ids{-1, 0, 0, 1, -1, 4, 5}));
  EXPECT_EQ(logits_rows, (Ids{0, 1, 2, 3, 6}));
  EXPECT_FALSE(batch.sequences[0].chain);
  EXPECT_TRUE(batch.sequences[1].chain);
  EXPECT_EQ(plan.entries[1].first_logits_row, 4);
  EXPECT_EQ(plan.entries[0].logits_row(2), 2);
  EXPECT_EQ(plan.entries[1].logits_row(6), 4);
}

TEST(Accept, descends_only_into_a_child_that_holds_the_token) {
  const Tree tree({{0}, {1}, {0, 0}});
  const Ids tokens{5, 6, 7, 6};
  EXPECT_EQ(child_with_token(tree, 0, tokens, 7), 2);
  EXPECT_EQ(child_with_token(tree, 0, tokens, 6), 1);
  EXPECT_EQ(child_with_token(tree, 0, tokens, 5), -1);
  EXPECT_EQ(child_with_token(tree, 1, tokens, 6), 3);
  EXPECT_EQ(child_with_token(tree, 3, tokens, 6), -1);
}

// Token 0 is a token like any other: a short path is never padded with it (defect B1 of the
// reference implementation).
TEST(Accept, a_leaf_accepts_nothing_not_even_token_zero) {
  const Tree tree({{0}, {1}, {1, 0}});
  const Ids tokens{5, 6, 7, 0};
  EXPECT_EQ(child_with_token(tree, 1, tokens, 0), -1);
  EXPECT_EQ(child_with_token(tree, 2, tokens, 0), 3);
}

}  // namespace
}  // namespace medusa
