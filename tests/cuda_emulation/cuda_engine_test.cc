// The whole engine on the device under test.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "device.h"
#include "medusa/engine.h"
#include "medusa/error.h"
#include "tiny_model.h"

namespace medusa {
namespace {

using testing::random_prompt;
using testing::run;
using testing::TinyModel;

struct Case {
  ComputeType compute;
  bool projection, greedy, grounded;
};

SamplingParams params_for(int seed, bool greedy) {
  SamplingParams params;
  params.max_tokens = 12;
  params.temperature = greedy ? 0.0f : 0.8f;
  params.seed = seed;
  return params;
}

class CudaEngineTest : public ::testing::TestWithParam<Case> {
 protected:
  void TearDown() override { device::check_memory(); }
  TinyModel tiny() const { return TinyModel(7, GetParam().compute, 1, "cuda"); }
};

TEST_P(CudaEngineTest, medusa_equals_plain_for_one_and_four_sequences) {
  TinyModel source = tiny();
  const Model model = source.load();
  const Heads heads = source.random_heads(model, 4, GetParam().projection, GetParam().grounded);
  std::mt19937 random(3);
  std::vector<std::vector<int32_t>> prompts;
  for (const int size : {1, 63, 64, 70}) prompts.push_back(random_prompt(random, size, 101));

  Engine plain(model, {}, Tree::root_only(), {.max_num_seqs = 1, .max_model_len = 128});
  std::vector<std::vector<int32_t>> expected;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto params = params_for(static_cast<int>(i), GetParam().greedy);
    const int64_t id = plain.submit(prompts[i], params);
    expected.push_back(run(plain).at(id));
  }
  for (const int num_seqs : {1, 4}) {
    Engine medusa(model, heads, Tree({{0}, {1}, {0, 0}, {0, 1}, {1, 0}, {0, 0, 0}, {0, 0, 0, 0}}),
                  {.max_num_seqs = num_seqs, .max_model_len = 128});
    std::vector<int64_t> ids;
    for (size_t i = 0; i < prompts.size(); ++i) {
      const auto params = params_for(static_cast<int>(i), GetParam().greedy);
      ids.push_back(medusa.submit(prompts[i], params));
    }
    const auto answers = run(medusa);
    for (size_t i = 0; i < prompts.size(); ++i) EXPECT_EQ(answers.at(ids[i]), expected[i]) << i;
  }
}

// Who has rules sends the whole step's acceptance to the host, level by level.
TEST_P(CudaEngineTest, answers_are_the_same_whether_device_or_host_accepts) {
  TinyModel source = tiny();
  const Model model = source.load();
  const Heads heads = source.random_heads(model, 4, GetParam().projection, GetParam().grounded);
  for (const AcceptanceMethod method : {AcceptanceMethod::exact, AcceptanceMethod::typical}) {
    const auto answers = [&](bool host) {
      std::mt19937 random(9);
      Engine engine(model, heads, Tree({{0}, {1}, {0, 0}, {0, 1}, {1, 0}, {0, 0, 0}}),
                    {.max_num_seqs = 4, .max_model_len = 128, .acceptance_method = method});
      auto neighbour = params_for(0, false);
      neighbour.logprobs = 2;
      if (host) neighbour.logit_bias = {{3, 0.5f}};
      neighbour.max_tokens = 15;
      const int64_t other = engine.submit(random_prompt(random, 20, 101), neighbour);
      for (int i = 1; i < 4; ++i) {
        auto params = params_for(i, GetParam().greedy);
        params.speculative = i != 3;
        engine.submit(random_prompt(random, 30 * i, 101), params);
      }
      auto all = run(engine);
      all.erase(other);
      return all;
    };
    EXPECT_EQ(answers(true), answers(false));
  }
}

TEST_P(CudaEngineTest, logits_are_those_of_the_cpu) {
  TinyModel source = tiny();
  const Model cuda = source.load();
  const bool half = GetParam().compute == ComputeType::float16;  // which the CPU does not have
  const Model cpu = TinyModel(7, half ? ComputeType::float32 : GetParam().compute, 1, "cpu").load();
  std::mt19937 random(5);
  const auto prompt = random_prompt(random, 90, 101);
  const auto found = cuda.logits(prompt), expected = cpu.logits(prompt);
  double worst = 0, largest = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    ASSERT_TRUE(std::isfinite(found[i]));
    worst = std::max(worst, std::abs(double{found[i]} - expected[i]));
    largest = std::max(largest, std::abs(double{expected[i]}));
  }
  const bool wide = GetParam().compute == ComputeType::float32;
  EXPECT_LT(worst / largest, wide ? 2e-6 : 0.02) << "largest logit " << largest;
}

TEST_P(CudaEngineTest, chunks_of_a_prompt_give_the_same_logits) {
  TinyModel source = tiny();
  const Model model = source.load();
  std::mt19937 random(6);
  const auto prompt = random_prompt(random, 75, 101);
  const auto whole = model.logits(prompt);
  for (const std::vector<int>& chunks : {std::vector<int>{1, 74}, {64, 11}, {30, 40, 5}}) {
    EXPECT_EQ(model.logits(prompt, chunks), whole);
  }
}

// By tensor, by channel and by blocks that rows and columns do not fill.
TEST(CudaEngineFloat8Test, medusa_equals_plain) {
  for (const auto& [height, width] : {std::pair{4096, 4096}, {1, 4096}, {40, 128}}) {
    TinyModel source(7, ComputeType::bfloat16, 1, "cuda");
    source.make_float8(height, width);
    const Model model = source.load();
    EXPECT_GT(model.weight_formats().at("F8_E4M3"), 0);
    const Heads heads = source.random_heads(model, 3);
    for (const bool greedy : {true, false}) {
      const auto answers = [&](Engine&& engine) {
        std::mt19937 random(11);
        for (int i = 0; i < 2; ++i) {
          engine.submit(random_prompt(random, 40 * i + 3, 101), params_for(i, greedy));
        }
        return run(engine);
      };
      const EngineOptions options{.max_num_seqs = 2, .max_model_len = 128};
      EXPECT_EQ(answers(Engine(model, heads, Tree({{0}, {1}, {0, 0}, {0, 0, 0}}), options)),
                answers(Engine(model, {}, Tree::root_only(), options)));
    }
  }
  device::check_memory();
}

INSTANTIATE_TEST_SUITE_P(all, CudaEngineTest,
                         ::testing::Values(Case{ComputeType::bfloat16, false, true, false},
                                           Case{ComputeType::bfloat16, true, false, true},
                                           Case{ComputeType::float16, true, true, false},
                                           Case{ComputeType::float32, false, false, false}));

}  // namespace
}  // namespace medusa
