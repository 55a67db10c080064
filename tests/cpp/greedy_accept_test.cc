#include "accept_case.h"

namespace medusa {
namespace {

class GreedyAcceptTest : public testing::TestWithParam<KernelCase> {};
MEDUSA_FOR_EVERY_ISA(GreedyAcceptTest);

std::vector<Asked> greedy() {
  const Tree wide = Tree::stock("mc_sim_7b_63"), chain = Tree::chain(4);
  return {{.prompt = 40, .draws = false}, {.tree = wide}, {.tree = chain}, {.prompt = 33},
          {.tree = Tree::root_only()},    {.tree = wide}, {.prompt = 1}};
}

TEST_P(GreedyAcceptTest, decides_what_the_likeliest_tokens_say) {
  expect_defined_decisions(*GetParam().backend(2), greedy(), 19);
}

TEST_P(GreedyAcceptTest, writes_no_logits) {
  const auto backend = GetParam().backend(2);
  AcceptStep step(*backend, greedy(), 9);
  const Matrix untouched = step.room().fetch();
  step.decide();
  EXPECT_TRUE(step.room().fetch().same(untouched));
}

TEST_P(GreedyAcceptTest, decides_without_logits_about_prompts) {
  const auto backend = GetParam().backend(2);
  AcceptStep step(*backend, {{.prompt = 5, .draws = false}}, 3);
  EXPECT_EQ(step.decide(), step.expected());
}

TEST_P(GreedyAcceptTest, leaves_alone_what_looks_at_logits) {
  const auto backend = GetParam().backend(2);
  AcceptStep step(*backend, greedy(), 4);
  const Matrix kept(DType::i32, 1, step.batch().num_rows());
  const Matrix last(DType::i32, 1, 7), roots(DType::i32, 1, 7);
  const auto answer = [&](bool wanted = false) {
    return ops::accept(*backend, {kept, last, roots}, step.product(wanted), step.batch(),
                       step.sequences(), kAcceptRule);
  };
  EXPECT_TRUE(answer());
  EXPECT_FALSE(answer(true));
  AcceptSequence& asked = step.sequences()[1];
  asked.typical = true;
  EXPECT_FALSE(answer());
  asked.typical = false;
  asked.draw.temperature = 1;
  EXPECT_FALSE(answer());
  asked.draw.temperature = 0;
  const std::vector<int32_t> banned = {1};
  asked.draw.rules.banned = banned;
  EXPECT_FALSE(answer());
}

}  // namespace
}  // namespace medusa
