// Acceptance on the device against its definition.
#include "accept_case.h"
#include "device_case.h"
#include "medusa/error.h"

namespace medusa {
namespace {

class CudaAcceptTest : public DeviceTest {};
MEDUSA_FOR_EVERY_DEVICE_CASE(CudaAcceptTest);

std::vector<Asked> everyone() {
  const Tree wide = Tree::stock("mc_sim_7b_63"), chain = Tree::chain(4);
  return {{.prompt = 40, .draws = false},
          {.tree = wide},
          {.tree = wide, .temperature = 1.2f},
          {.tree = chain, .temperature = 0.7f},
          {.prompt = 33, .temperature = 0.7f},
          {.tree = wide, .typical = true, .temperature = 0.9f},
          {.tree = chain, .typical = true, .temperature = 0},
          {.tree = Tree::root_only(), .temperature = 0.9f},
          {.tree = Tree::root_only(), .typical = true, .temperature = 0.9f},
          {.prompt = 1, .typical = true, .temperature = 0.9f}};
}

TEST_P(CudaAcceptTest, decides_what_the_rules_say) {
  expect_defined_decisions(*backend, everyone(), 6);
}

// Only who wants the logits gets them, with the bits of a product that stores them.
TEST_P(CudaAcceptTest, writes_logits_where_they_are_wanted) {
  AcceptStep step(*backend, everyone(), 9);
  const Matrix untouched = step.room().fetch();
  const Decided without = step.decide();
  EXPECT_TRUE(step.room().fetch().same(untouched));
  EXPECT_EQ(step.decide(true), without);
  EXPECT_TRUE(step.room().fetch().same(step.logits().fetch()));
}

TEST_P(CudaAcceptTest, works_without_drafts_and_without_logits) {
  AcceptStep root(*backend, {{.typical = true, .temperature = 1}}, 2);
  EXPECT_EQ(root.decide(), root.expected());
  AcceptStep step(*backend, {{.prompt = 5, .draws = false}}, 3);
  EXPECT_EQ(step.decide().kept, (std::vector<int32_t>{1, 1, 1, 1, 1}));
}

TEST_P(CudaAcceptTest, leaves_to_the_host_what_needs_the_host) {
  AcceptStep step(*backend, {{}, {.tree = Tree::chain(2), .temperature = 1}}, 4);
  const Resident out(*backend, Matrix(DType::i32, 1, 4)), two(*backend, Matrix(DType::i32, 1, 2));
  const auto answer = [&] {
    return ops::accept(*backend, {out, two, two}, step.product(), step.batch(), step.sequences(),
                       kAcceptRule);
  };
  EXPECT_TRUE(answer());
  step.sequences()[1].draw.top_k = 3;
  EXPECT_FALSE(answer());
  step.sequences()[1].draw.top_k = 0;
  const std::vector<int32_t> banned = {1};
  step.sequences()[0].draw.rules.banned = banned;
  EXPECT_FALSE(answer());
}

TEST_P(CudaAcceptTest, refuses_rows_outside_of_the_batch) {
  AcceptStep step(*backend, {{.tree = Tree::chain(3)}}, 5);
  step.sequences()[0].num_rows = 5;
  EXPECT_THROW(step.decide(), InvalidArgument);
}

}  // namespace
}  // namespace medusa
