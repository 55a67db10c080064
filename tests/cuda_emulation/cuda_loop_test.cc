// Steps that the device takes by itself: the same tokens as where the host asks for each.
#include <gtest/gtest.h>

#include "device.h"
#include "loop_case.h"
#include "medusa/error.h"

namespace medusa {
namespace {

using testing::LoopCase;
using testing::run;
using testing::Setting;

using Answers = std::map<int64_t, std::vector<int32_t>>;

struct Asked {
  std::vector<int> prompts;
  float temperature = 0;
  AcceptanceMethod method = AcceptanceMethod::exact;
  bool speculative = true;
  int schedule = 0;  // of the device under test
};

void PrintTo(const Asked& asked, std::ostream* out) {
  for (const int prompt : asked.prompts) *out << prompt << ' ';
  *out << asked.temperature << (asked.speculative ? " drafts " : " plain ") << asked.schedule;
}

SamplingParams params_of(const Asked& asked, size_t request) {
  SamplingParams params;
  params.max_tokens = 22 + 6 * static_cast<int>(request % 3);
  params.temperature = asked.temperature;
  params.seed = request;
  params.speculative = asked.speculative;
  return params;
}

// They end at different lengths.
Answers answers(const Asked& asked, int steps) {
  LoopCase c(steps, {.max_num_seqs = static_cast<int>(asked.prompts.size()),
                     .max_model_len = 640,
                     .acceptance_method = asked.method});
  for (size_t i = 0; i < asked.prompts.size(); ++i) {
    c.engine.submit(c.prompt(asked.prompts[i]), params_of(asked, i));
  }
  return run(c.engine);
}

class CudaLoopTest : public ::testing::TestWithParam<Asked> {
 protected:
  void SetUp() override { device::choose_schedule(GetParam().schedule); }
  void TearDown() override {
    device::check_memory();
    device::choose_schedule(0);
  }
};

TEST_P(CudaLoopTest, changes_no_token) {
  EXPECT_EQ(answers(GetParam(), 16), answers(GetParam(), 0));
}

// Answers cross borders of pages (64 positions) and of attention's splits (512).
INSTANTIATE_TEST_SUITE_P(all, CudaLoopTest,
                         ::testing::Values(Asked{{50}}, Asked{{120}, 0.9f}, Asked{{500}},
                                           Asked{{50}, 0, AcceptanceMethod::exact, false},
                                           Asked{{100}, 0.9f, AcceptanceMethod::exact, false},
                                           Asked{{60}, 0.9f, AcceptanceMethod::typical},
                                           Asked{{50, 9, 120}, 0.9f},
                                           Asked{{50, 9}, 0, AcceptanceMethod::typical}));

std::vector<Asked> other_schedules() {
  std::vector<Asked> all;
  for (int i = 1; i < static_cast<int>(device::schedules().size()); ++i) {
    all.push_back({{50}, 0.9f, AcceptanceMethod::exact, true, i});
    all.push_back({{50, 60}, 0, AcceptanceMethod::exact, true, i});
  }
  return all;
}
INSTANTIATE_TEST_SUITE_P(schedules, CudaLoopTest, ::testing::ValuesIn(other_schedules()));

TEST(CudaLoop, of_any_length_changes_no_token) {
  const Asked asked{{50}, 0.9f};
  const Answers expected = answers(asked, 0);
  for (const int steps : {1, 3, 1000}) EXPECT_EQ(answers(asked, steps), expected) << steps;
}

TEST(CudaLoop, with_drafts_gives_what_plain_decoding_gives) {
  for (const float temperature : {0.0f, 0.9f}) {
    Asked asked{{50}, temperature};
    const Answers drafted = answers(asked, 16);
    asked.speculative = false;
    EXPECT_EQ(drafted, answers(asked, 0));
  }
}

TEST(CudaLoop, ends_at_stop_tokens) {
  LoopCase looped(16), stepped(0);
  const auto prompt = looped.prompt(30);
  SamplingParams params{.max_tokens = 36, .temperature = 0.9f};
  const auto whole = stepped.answer(prompt, params);
  for (size_t i = 8; i < whole.size(); i += 12) {
    params.stop_token_ids = {7, whole[i]};
    EXPECT_EQ(looped.answer(prompt, params), stepped.answer(prompt, params)) << i;
  }
}

TEST(CudaLoop, maps_the_ids_of_a_trimmed_vocabulary) {
  std::vector<int32_t> map;
  for (int id = 0; id < 64; ++id) map.push_back((id * 37 + 5) % 101);
  LoopCase looped(16, {.max_num_seqs = 1, .max_model_len = 640}, map);
  LoopCase stepped(0, {.max_num_seqs = 1, .max_model_len = 640}, map);
  const auto prompt = looped.prompt(30);
  const SamplingParams params{.max_tokens = 30};
  EXPECT_EQ(looped.answer(prompt, params), stepped.answer(prompt, params));
}

// A second request comes, and the first goes, while the device is ahead.
TEST(CudaLoop, gives_way_to_other_requests) {
  const auto answers = [](int steps) {
    LoopCase c(steps, {.max_num_seqs = 2, .max_model_len = 640});
    const SamplingParams params{.max_tokens = 40, .temperature = 0.9f};
    const int64_t first = c.engine.submit(c.prompt(40), params);
    for (int i = 0; i < 6; ++i) c.engine.step();
    const int64_t second = c.engine.submit(c.prompt(70, 5), params);
    for (int i = 0; i < 6; ++i) c.engine.step();
    c.engine.cancel(first);
    return run(c.engine)[second];
  };
  const auto expected = answers(0);
  EXPECT_GT(expected.size(), 10u);
  EXPECT_EQ(answers(16), expected);
}

// Two answers of three pages share four.
TEST(CudaLoop, goes_on_when_pages_run_out) {
  const auto answers = [](int steps) {
    const size_t page = 2 * 2 * 2 * 16 * 64 * 2;  // sides, layers, heads, width, positions, bytes
    LoopCase c(steps, {.max_num_seqs = 2, .max_model_len = 192, .kv_cache_memory = 4 * page}, {},
               Tree::chain(3));
    const SamplingParams params{.max_tokens = 70};
    c.engine.submit(c.prompt(60), params);
    c.engine.submit(c.prompt(62, 5), params);
    auto all = run(c.engine);
    EXPECT_EQ(c.engine.num_pages(), 4);
    EXPECT_GT(c.engine.metrics().num_preemptions, 0);
    EXPECT_EQ(c.engine.num_free_pages(), 4);
    return all;
  };
  EXPECT_EQ(answers(16), answers(0));
}

// Who waits gets the pages that were reserved for steps ahead.
TEST(CudaLoop, holds_no_pages_that_somebody_waits_for) {
  const size_t page = 2 * 2 * 2 * 16 * 64 * 2;
  LoopCase c(100, {.max_num_seqs = 2, .max_model_len = 192, .kv_cache_memory = 3 * page});
  c.engine.submit(c.prompt(20), {.max_tokens = 100});
  for (int i = 0; i < 6; ++i) c.engine.step();
  EXPECT_EQ(c.engine.num_free_pages(), 1);
  const int64_t second = c.engine.submit(c.prompt(100, 5), {.max_tokens = 4});
  ASSERT_EQ(c.engine.step().size(), 2u);
  EXPECT_EQ(c.engine.metrics(second).num_preemptions, 0);
}

// The second answer's full pages are replaced by the first's while the device is ahead.
TEST(CudaLoop, shares_pages_with_an_earlier_answer) {
  LoopCase looped(16), stepped(0);
  const auto prompt = looped.prompt(45);
  const SamplingParams params{.max_tokens = 40, .temperature = 0.9f, .speculative = false};
  const auto expected = stepped.answer(prompt, params);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(looped.answer(prompt, params), expected) << i;
}

// What the host has a part in is not gone ahead with: the same answers, and log-probabilities.
TEST(CudaLoop, leaves_to_the_host_what_needs_it) {
  LoopCase looped(16), stepped(0);
  const auto prompt = looped.prompt(30);
  const std::vector<SamplingParams> all{{.max_tokens = 20, .temperature = 0.9f, .top_p = 0.8f},
                                        {.max_tokens = 20, .repetition_penalty = 1.3f},
                                        {.max_tokens = 20, .logprobs = 2},
                                        {.max_tokens = 20, .stop_token_ids = {4}, .min_tokens = 9}};
  for (const SamplingParams& params : all) {
    EXPECT_EQ(looped.answer(prompt, params), stepped.answer(prompt, params));
  }
}

// Each ends what the other has under way.
TEST(CudaLoop, of_two_engines_on_one_model) {
  const auto answers = [](int steps) {
    LoopCase c(steps);
    Engine other(c.model, c.heads, Tree::chain(2), {.max_num_seqs = 1, .max_model_len = 256});
    c.engine.submit(c.prompt(20), {.max_tokens = 24, .temperature = 0.9f});
    other.submit(c.prompt(33), {.max_tokens = 24});
    std::vector<int32_t> tokens;
    while (c.engine.has_unfinished() || other.has_unfinished()) {
      for (Engine* engine : {&c.engine, &other}) {
        for (const StepOutput& out : engine->step()) {
          tokens.insert(tokens.end(), out.tokens.begin(), out.tokens.end());
        }
      }
    }
    return tokens;
  };
  EXPECT_EQ(answers(16), answers(0));
}

TEST(CudaLoop, has_a_number_of_steps) {
  for (const char* wrong : {"yes", "-1", "5000", "3 "}) {
    const Setting setting("MEDUSA_CUDA_LOOP", wrong);
    EXPECT_THROW(testing::TinyModel(1, ComputeType::bfloat16, 1, "cuda").load(), InvalidArgument);
  }
  const Setting graphs("MEDUSA_CUDA_GRAPHS", "0");
  EXPECT_THROW(LoopCase(4), InvalidArgument);
}

}  // namespace
}  // namespace medusa
