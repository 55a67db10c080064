#include "decode/synthetic_accept.h"

#include <gtest/gtest.h>

#include "medusa/error.h"
#include "tiny_model.h"

namespace medusa {
namespace {

using testing::TinyModel;

struct Outcome {
  std::vector<int32_t> tokens;
  Metrics metrics;
};

Outcome decode(const Tree& tree, float length, uint64_t seed) {
  TinyModel tiny;
  const Model model = tiny.load();
  const Heads heads = tiny.random_heads(model, 4);
  Engine engine(model, heads, tree, {.max_num_seqs = 1, .synthetic_acceptance_length = length});
  const std::vector<int32_t> prompt{1, 2, 3};
  const int64_t id = engine.submit(prompt, {.max_tokens = 480, .seed = seed});
  const auto answers = testing::run(engine);
  return {answers.at(id), engine.metrics(id)};
}

double tokens_a_step(const Outcome& outcome) {
  return 1.0 + static_cast<double>(outcome.metrics.num_accepted_tokens) /
                   static_cast<double>(outcome.metrics.num_steps);
}

TEST(SyntheticAcceptance, tokens_a_step_are_as_asked) {
  for (const float length : {1.5f, 2.5f, 3.5f}) {
    double sum = 0;
    for (uint64_t seed = 0; seed < 4; ++seed) {
      sum += tokens_a_step(decode(Tree({{0}, {1}, {1, 0}, {1, 0, 2}}), length, seed));
    }
    EXPECT_NEAR(sum / 4, length, 0.2) << length;
  }
}

TEST(SyntheticAcceptance, the_ends_are_exact) {
  const Outcome none = decode(Tree::chain(4), 1, 0);
  EXPECT_EQ(none.metrics.num_accepted_tokens, 0);
  EXPECT_EQ(none.metrics.num_steps, 479);
  const Outcome all = decode(Tree::chain(4), 5, 0);
  EXPECT_EQ(all.metrics.num_steps, (479 + 4) / 5);
}

TEST(SyntheticAcceptance, a_seed_repeats) {
  const Outcome a = decode(Tree::chain(3), 2, 7), b = decode(Tree::chain(3), 2, 7);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_NE(a.tokens, decode(Tree::chain(3), 2, 8).tokens);
}

TEST(SyntheticAcceptance, lengths_that_no_tree_yields) {
  const Tree chain = Tree::chain(3);
  EXPECT_THROW(check_synthetic({.synthetic_acceptance_length = 0.5f}, chain), InvalidArgument);
  EXPECT_THROW(check_synthetic({.synthetic_acceptance_length = 4.5f}, chain), InvalidArgument);
  EXPECT_THROW(check_synthetic({.synthetic_acceptance_length = NAN}, chain), InvalidArgument);
  EXPECT_THROW(check_synthetic({.synthetic_acceptance_length = 1}, Tree::root_only()),
               InvalidArgument);
  EXPECT_NO_THROW(check_synthetic({.synthetic_acceptance_length = 4}, chain));
  EXPECT_NO_THROW(check_synthetic({}, Tree::root_only()));
}

}  // namespace
}  // namespace medusa
