#include "medusa/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <thread>

#include "allocations.h"
#include "medusa/error.h"
#include "tiny_model.h"

namespace medusa {
namespace {

using testing::random_prompt;
using testing::run;
using testing::TinyModel;

std::vector<int32_t> decode(Engine& engine, std::span<const int32_t> prompt,
                            const SamplingParams& params) {
  const int64_t id = engine.submit(prompt, params);
  return run(engine).at(id);
}

SamplingParams params_for(int seed, bool greedy) {
  SamplingParams params;
  params.max_tokens = 40;
  params.temperature = greedy ? 0.0f : 0.8f;
  params.seed = seed;
  return params;
}

struct Case {
  ComputeType compute;
  bool projection;
  bool greedy;
  bool grounded = false;
};

class Losslessness : public ::testing::TestWithParam<Case> {};

TEST_P(Losslessness, medusa_equals_plain_for_any_tree_and_batch) {
  TinyModel tiny(7, GetParam().compute);
  const Model model = tiny.load();
  const Heads heads = tiny.random_heads(model, 4, GetParam().projection, GetParam().grounded);
  std::mt19937 random(3);
  std::vector<std::vector<int32_t>> prompts;
  for (const int size : {1, 5, 63, 64, 65, 130})
    prompts.push_back(random_prompt(random, size, 101));

  Engine plain(model, {}, Tree::root_only(), {.max_num_seqs = 1});
  for (const Tree& tree : {Tree::chain(4), Tree::stock("mc_sim_7b_63"), Tree({{3}, {0}, {3, 1}})}) {
    Engine medusa(model, heads, tree, {.max_num_seqs = 4});
    std::vector<int64_t> ids;
    for (size_t i = 0; i < prompts.size(); ++i) {
      ids.push_back(medusa.submit(prompts[i], params_for(static_cast<int>(i), GetParam().greedy)));
    }
    const auto answers = run(medusa);
    for (size_t i = 0; i < prompts.size(); ++i) {
      const auto params = params_for(static_cast<int>(i), GetParam().greedy);
      EXPECT_EQ(answers.at(ids[i]), decode(plain, prompts[i], params)) << "prompt " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(all, Losslessness,
                         ::testing::Values(Case{ComputeType::bfloat16, false, true},
                                           Case{ComputeType::bfloat16, true, false},
                                           Case{ComputeType::float32, false, false},
                                           Case{ComputeType::bfloat16, false, false, true},
                                           Case{ComputeType::float32, true, true, true},
                                           Case{ComputeType::float32, true, true}));

TEST(Engine, trees_may_change_between_steps) {
  TinyModel tiny;
  const Model model = tiny.load();
  const Heads heads = tiny.random_heads(model, 4);
  std::mt19937 random(9);
  const auto prompt = random_prompt(random, 20, 101);
  Engine plain(model, {}, Tree::root_only(), {.max_num_seqs = 1});
  const auto expected = decode(plain, prompt, params_for(1, false));
  const Tree largest = Tree::stock("mc_sim_7b_63");
  Engine medusa(model, heads, largest, {.max_num_seqs = 1});
  const std::vector<Tree> trees{Tree::root_only(), Tree::chain(2), Tree({{4}, {0}}), largest};
  const int64_t id = medusa.submit(prompt, params_for(1, false));
  std::vector<int32_t> answer;
  for (int step = 0; medusa.has_unfinished(); ++step) {
    medusa.set_tree(trees[step / 2 % trees.size()]);
    const auto tokens = medusa.step()[0].tokens;
    answer.insert(answer.end(), tokens.begin(), tokens.end());
  }
  EXPECT_EQ(answer, expected);
  EXPECT_GT(medusa.metrics(id).num_drafts, 0);
  EXPECT_LT(medusa.metrics(id).num_drafts, medusa.metrics(id).num_steps);
  EXPECT_THROW(medusa.set_tree(Tree::chain(5)), InvalidArgument);
  EXPECT_THROW(medusa.set_tree(Tree({{0}, {10}})), InvalidArgument);
}

TEST(Engine, a_prompt_in_chunks_gives_the_same_answer) {
  TinyModel tiny;
  const Model model = tiny.load();
  std::mt19937 random(5);
  const auto prompt = random_prompt(random, 200, 101);
  Engine whole(model, {}, Tree::root_only(), {.max_num_seqs = 1, .max_num_batched_tokens = 256});
  Engine parts(model, {}, Tree::root_only(), {.max_num_seqs = 1, .max_num_batched_tokens = 7});
  const auto params = params_for(1, false);
  EXPECT_EQ(decode(whole, prompt, params), decode(parts, prompt, params));
}

// Embedding and lm_head make each token's successor a function of the token alone: layers add
// nothing, and lm_head row successor(t) is the embedding of t.
struct Clockwork {
  TinyModel tiny;
  std::vector<float> lm_head;

  explicit Clockwork(int step) {
    for (auto& [name, tensor] : tiny.tensors()) {
      const bool adds = name.find("o_proj") != name.npos || name.find("down_proj") != name.npos;
      if (adds) std::fill_n(floats(tensor), tensor.bytes / sizeof(float), 0.0f);
      if (name == "model.norm.weight") std::fill_n(floats(tensor), 64, 1.0f);
    }
    lm_head = successors(step);
    tiny.tensors()["lm_head.weight"] = as_tensor(lm_head);
    tiny.config().tie_word_embeddings = false;
  }
  static float* floats(const HostTensor& tensor) {
    return static_cast<float*>(const_cast<void*>(tensor.data));
  }
  HostTensor as_tensor(std::vector<float>& values) const {
    return {values.data(), values.size() * sizeof(float), DType::f32, {101, 64}};
  }
  // Row (t + step) mod 101 is the embedding of t, of unit length.
  std::vector<float> successors(int step) {
    const float* table = floats(tiny.tensors().at("model.embed_tokens.weight"));
    std::vector<float> rows(101 * 64);
    for (int t = 0; t < 101; ++t) {
      float norm = 0;
      for (int i = 0; i < 64; ++i) norm += table[t * 64 + i] * table[t * 64 + i];
      for (int i = 0; i < 64; ++i) {
        rows[(t + step) % 101 * 64 + i] = table[t * 64 + i] / std::sqrt(norm);
      }
    }
    return rows;
  }
};

// Four heads that know what Clockwork(1) does.
Heads right_heads(Clockwork& clockwork, const Model& model) {
  Heads::Source source;
  std::vector<float> zeros(64 * 64);
  std::vector<std::vector<float>> projections;
  for (int head = 0; head < 4; ++head) projections.push_back(clockwork.successors(head + 2));
  for (auto& projection : projections) {
    source.residual.push_back({{{zeros.data(), zeros.size() * 4, DType::f32, {64, 64}}, {}}});
    source.projection.push_back(clockwork.as_tensor(projection));
  }
  return Heads::load(model, source);
}

TEST(Engine, heads_that_are_always_right_are_accepted_to_full_depth) {
  Clockwork clockwork(1);
  const Model model = clockwork.tiny.load();
  const Heads heads = right_heads(clockwork, model);
  Engine engine(model, heads, Tree::chain(4), {.max_num_seqs = 1});
  SamplingParams params;
  params.max_tokens = 41;
  const int64_t id = engine.submit(std::vector<int32_t>{17}, params);
  const auto answer = run(engine).at(id);
  for (int i = 0; i < 41; ++i) EXPECT_EQ(answer[i], (18 + i) % 101);
  const Metrics metrics = engine.metrics(id);
  EXPECT_EQ(metrics.num_steps, 8);  // one token by the prompt, then 8 steps of 5
  EXPECT_EQ(metrics.num_accepted_tokens, 32);
  EXPECT_EQ(metrics.accepted_per_position, (std::vector<int64_t>{8, 8, 8, 8}));
  EXPECT_EQ(metrics.rank_histogram, (std::vector<int64_t>{8, 8, 8, 8}));
}

// The last token of the answer fills a page, and the accepted path goes on.
TEST(Engine, commits_nothing_beyond_the_last_token) {
  Clockwork clockwork(1);
  const Model model = clockwork.tiny.load();
  const Heads heads = right_heads(clockwork, model);
  Engine engine(model, heads, Tree::chain(4), {.max_num_seqs = 2});
  for (int max_tokens = 60; max_tokens < 68; ++max_tokens) {
    std::vector<int64_t> ids;
    for (int start : {17, 40}) {
      ids.push_back(engine.submit(std::vector<int32_t>{start}, {.max_tokens = max_tokens}));
    }
    const auto answers = run(engine);
    for (const int64_t id : ids) {
      const auto& answer = answers.at(id);
      ASSERT_EQ(answer.size(), static_cast<size_t>(max_tokens));
      for (size_t i = 1; i < answer.size(); ++i) EXPECT_EQ(answer[i], (answer[i - 1] + 1) % 101);
    }
  }
}

TEST(Engine, stops_at_a_stop_token_inside_an_accepted_block) {
  Clockwork clockwork(1);
  const Model model = clockwork.tiny.load();
  Engine engine(model, {}, Tree::root_only(), {});
  SamplingParams params;
  params.stop_token_ids = {25};
  const int64_t id = engine.submit(std::vector<int32_t>{17}, params);
  EXPECT_EQ(run(engine).at(id), (std::vector<int32_t>{18, 19, 20, 21, 22, 23, 24, 25}));
}

TEST(Engine, min_tokens_bans_stop_tokens_until_then) {
  Clockwork clockwork(1);
  const Model model = clockwork.tiny.load();
  Engine engine(model, {}, Tree::root_only(), {});
  SamplingParams params;
  params.stop_token_ids = {18};
  params.min_tokens = 3;
  params.max_tokens = 6;
  const int64_t id = engine.submit(std::vector<int32_t>{17}, params);
  EXPECT_GE(run(engine).at(id).size(), 3u);
}

// Every parameter that changes or reports logits.
SamplingParams everything(int seed) {
  SamplingParams params = params_for(seed, false);
  params.top_p = 0.9f;
  params.min_p = 0.01f;
  params.top_k = 70;
  params.stop_token_ids = {3};
  params.min_tokens = 30;
  params.repetition_penalty = 1.2f;
  params.presence_penalty = 0.1f;
  params.frequency_penalty = 0.2f;
  params.logit_bias = {{5, 1.0f}, {6, -1.0f}};
  for (int32_t id = 0; id < 90; ++id) params.allowed_token_ids.push_back(id);
  params.bad_words = {{7}, {8, 9}, {10, 11, 12}};
  params.logprobs = 5;
  params.prompt_logprobs = 2;
  return params;
}

class Allocations : public ::testing::TestWithParam<bool> {};

TEST_P(Allocations, none_in_a_step_after_warm_up) {
  TinyModel tiny;
  const Model model = tiny.load();
  const Heads heads = tiny.random_heads(model, 4, false, GetParam());
  Engine engine(model, heads, Tree::stock("mc_sim_7b_63"), {.max_num_seqs = 3});
  std::mt19937 random(1);
  const auto fill = [&] {
    for (int i = 0; i < 3; ++i) {
      engine.submit(random_prompt(random, 100, 101),
                    i == 2 ? everything(i) : params_for(i, i == 0));
    }
  };
  fill();
  run(engine);
  fill();
  for (int i = 0; i < 3; ++i) engine.step();
  const int64_t before = testing::allocations();
  for (int i = 0; i < 10; ++i) engine.step();
  EXPECT_EQ(testing::allocations(), before);
}

INSTANTIATE_TEST_SUITE_P(heads, Allocations, ::testing::Bool());

// The head names the successor of the root that it sees, so it is always right only if that is the
// root of its own sequence.
TEST(Engine, grounded_heads_see_the_root_of_their_own_sequence) {
  Clockwork clockwork(1);
  const Model model = clockwork.tiny.load();
  Heads::Source source{.residual = {}, .projection = {}, .token_map = {}, .grounded = true};
  std::vector<float> weight(64 * 128), projection = clockwork.successors(1);
  for (int i = 0; i < 64; ++i) weight[i * 128 + 64 + i] = 100;  // silu(100 e) = 100 relu(e)
  source.residual.push_back({{{weight.data(), weight.size() * 4, DType::f32, {64, 128}}, {}}});
  source.projection.push_back(clockwork.as_tensor(projection));
  const Heads heads = Heads::load(model, source);
  Engine engine(model, heads, Tree::chain(1), {.max_num_seqs = 4});
  SamplingParams params;
  params.max_tokens = 41;
  std::vector<int64_t> ids;
  for (int i = 0; i < 4; ++i) ids.push_back(engine.submit(std::vector<int32_t>{20 * i}, params));
  run(engine);
  for (const int64_t id : ids) EXPECT_EQ(engine.metrics(id).num_steps, 20);  // two tokens a step
}

TEST(Engine, cancelled_requests_leave_the_others_as_they_are) {
  TinyModel tiny;
  const Model model = tiny.load();
  const Heads heads = tiny.random_heads(model, 4);
  Engine engine(model, heads, Tree::stock("zephyr_stage2"), {.max_num_seqs = 2});
  std::mt19937 random(2);
  const auto kept = random_prompt(random, 20, 101), dropped = random_prompt(random, 30, 101);
  const auto alone = decode(engine, kept, params_for(9, false));
  const int64_t victim = engine.submit(dropped, params_for(1, true));
  const int64_t id = engine.submit(kept, params_for(9, false));
  std::vector<int32_t> answer;
  for (int i = 0; engine.has_unfinished(); ++i) {
    for (const StepOutput& output : engine.step()) {
      if (output.request_id != id) continue;
      answer.insert(answer.end(), output.tokens.begin(), output.tokens.end());
    }
    if (i == 3) engine.cancel(victim);
  }
  EXPECT_EQ(answer, alone);
  engine.forget(victim);
  EXPECT_THROW(engine.metrics(victim), InvalidArgument);
}

TEST(Engine, two_on_one_model_may_step_in_two_threads) {
  TinyModel tiny;
  const Model model = tiny.load();
  const Heads heads = tiny.random_heads(model, 4);
  const std::vector<int32_t> prompt{3, 1, 4, 1, 5};
  Engine first(model, heads, Tree::chain(4), {}), second(model, {}, Tree::root_only(), {});
  std::vector<int32_t> drafted, plain;
  std::thread other([&] { plain = decode(second, prompt, params_for(2, false)); });
  drafted = decode(first, prompt, params_for(2, false));
  other.join();
  EXPECT_EQ(drafted, plain);
}

TEST(Engine, refuses_bad_requests_and_limits) {
  TinyModel tiny;
  const Model model = tiny.load();
  Engine engine(model, {}, Tree::root_only(), {.max_model_len = 64});
  const std::vector<int32_t> good{1};
  EXPECT_THROW(engine.submit({}, {}), InvalidArgument);
  EXPECT_THROW(engine.submit(std::vector<int32_t>{101}, {}), InvalidArgument);
  EXPECT_THROW(engine.submit(std::vector<int32_t>{-1}, {}), InvalidArgument);
  EXPECT_THROW(engine.submit(std::vector<int32_t>(64, 1), {}), InvalidArgument);
  EXPECT_THROW(engine.submit(good, {.max_tokens = 0}), InvalidArgument);
  EXPECT_THROW(engine.submit(good, {.temperature = -1}), InvalidArgument);
  EXPECT_THROW(engine.submit(good, {.top_p = 0}), InvalidArgument);
  EXPECT_THROW(engine.submit(good, {.min_p = 2}), InvalidArgument);
  EXPECT_THROW(Engine(model, {}, Tree::chain(2), {}), InvalidArgument);
  EXPECT_THROW(Engine(model, {}, Tree::root_only(), {.max_num_seqs = 0}), InvalidArgument);
  EXPECT_THROW(Engine(model, {}, Tree::root_only(), {.max_model_len = 1000}), InvalidArgument);
  EXPECT_THROW(Engine(model, {}, Tree::root_only(), {.kv_cache_memory = 1}), OutOfMemory);
  const Heads heads = tiny.random_heads(model, 2);
  EXPECT_THROW(Engine(model, heads, Tree::chain(3), {}), InvalidArgument);
}

}  // namespace
}  // namespace medusa
