// What steps ahead cost the host, and that the device's inputs are the host's. On the emulated
// device alone.
#include <gtest/gtest.h>

#include "emulated_stream.h"
#include "emulator.h"
#include "loop_case.h"

namespace medusa {
namespace {

using testing::LoopCase;
using testing::run;

struct Uses {
  size_t launched, rounds, waits, steps;
};

// By one request of a wide tree alone, prompt included.
Uses uses_of(LoopCase& c, const std::vector<int32_t>& prompt, const SamplingParams& params) {
  const auto before = emulation::graph_use();
  const size_t waits = emulation::waits();
  c.engine.submit(prompt, params);
  size_t steps = 0;
  for (; c.engine.has_unfinished(); ++steps) c.engine.step();
  const auto after = emulation::graph_use();
  return {after.launched - before.launched, after.rounds - before.rounds,
          emulation::waits() - waits, steps};
}

class CudaAheadTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override { emulation::set_runs_far_ahead(GetParam()); }
  void TearDown() override {
    emulation::check_device_memory();
    emulation::set_runs_far_ahead(false);
  }
};
INSTANTIATE_TEST_SUITE_P(all, CudaAheadTest, ::testing::Bool());

// Once its list is known a whole answer is one loop, but for the prompt and the last steps, whose
// heads have nothing to draft for. All rounds were asked for, so what the device laid out was, byte
// for byte, what the host did.
TEST_P(CudaAheadTest, is_one_launch_where_nothing_changes) {
  LoopCase c(100);
  for (const float temperature : {0.0f, 0.9f}) {
    const SamplingParams params{.max_tokens = 40, .temperature = temperature};
    uses_of(c, c.prompt(66, 1), params);
    const Uses uses = uses_of(c, c.prompt(66, 2), params);
    EXPECT_LE(uses.steps - uses.rounds, 4u);
    EXPECT_LE(uses.launched, 4u);
    EXPECT_EQ(uses.waits, uses.steps - uses.rounds);
    EXPECT_GT(uses.rounds, 15u);
    EXPECT_LT(uses.steps, 39u);  // drafts were accepted
  }
}

// Pages are added every 64 positions, and from 512 on attention has two splits: another loop.
TEST_P(CudaAheadTest, ends_where_a_launch_changes) {
  LoopCase c(200, {.max_num_seqs = 1, .max_model_len = 640});
  const SamplingParams params{.max_tokens = 30, .speculative = false};
  for (unsigned turn = 0; turn < 2; ++turn) uses_of(c, c.prompt(500, turn), params);
  const Uses uses = uses_of(c, c.prompt(500, 2), params);
  EXPECT_EQ(uses.rounds, 29u);  // all tokens but the prompt's
  EXPECT_EQ(uses.waits, uses.steps - uses.rounds);
  EXPECT_EQ(uses.launched, uses.waits + 2);
}

TEST_P(CudaAheadTest, takes_at_most_the_steps_asked_for) {
  LoopCase c(8);
  const SamplingParams params{.max_tokens = 50, .speculative = false};
  uses_of(c, c.prompt(20, 1), params);
  const Uses uses = uses_of(c, c.prompt(20, 2), params);
  EXPECT_EQ(uses.rounds, 48u);
  EXPECT_EQ(uses.launched, 7u);
}

// Not one round is for nothing.
TEST_P(CudaAheadTest, ends_with_a_stop_token) {
  LoopCase c(100);
  SamplingParams params{.max_tokens = 40, .temperature = 0.9f};
  const auto whole = c.answer(c.prompt(20), params);
  params.stop_token_ids = {whole[25]};
  const Uses uses = uses_of(c, c.prompt(20), params);
  EXPECT_LT(uses.steps, 28u);
  EXPECT_GT(uses.rounds, 2u);
  EXPECT_EQ(uses.rounds + uses.waits, uses.steps);
}

// Several sequences: as long as all of them go on.
TEST_P(CudaAheadTest, takes_several_sequences_along) {
  LoopCase c(100, {.max_num_seqs = 3, .max_model_len = 256});
  for (int turn = 0; turn < 2; ++turn) {
    const size_t before = emulation::graph_use().rounds, waits = emulation::waits();
    for (unsigned i = 0; i < 3; ++i) {
      c.engine.submit(c.prompt(50 + 9 * static_cast<int>(i), 10 * turn + i),
                      {.max_tokens = 30, .temperature = 0.9f, .seed = i});
    }
    size_t steps = 0;
    for (; c.engine.has_unfinished(); ++steps) c.engine.step();
    if (turn == 0) continue;
    EXPECT_GT(emulation::graph_use().rounds - before, 10u);
    EXPECT_EQ(emulation::graph_use().rounds - before + emulation::waits() - waits, steps);
  }
}

// A cancelled request's steps ahead end at once.
TEST_P(CudaAheadTest, ends_with_its_request) {
  LoopCase c(100);
  const SamplingParams params{.max_tokens = 90, .speculative = false};
  c.answer(c.prompt(20, 1), params);
  const int64_t id = c.engine.submit(c.prompt(20, 2), params);
  for (int i = 0; i < 10; ++i) c.engine.step();
  const size_t before = emulation::graph_use().rounds;
  c.engine.cancel(id);
  EXPECT_LE(emulation::graph_use().rounds - before, 1u);
  const size_t after = emulation::graph_use().rounds;
  EXPECT_FALSE(c.engine.has_unfinished());
  c.engine.step();
  EXPECT_EQ(emulation::graph_use().rounds, after);
}

}  // namespace
}  // namespace medusa
