// What a decode step costs the host: launches, graphs, waits. On the emulated device alone.
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "backend/cuda/graph_cache.h"
#include "emulated_stream.h"
#include "medusa/engine.h"
#include "tiny_model.h"

namespace medusa {
namespace {

using testing::random_prompt;
using testing::TinyModel;

constexpr int kLayers = 16;

struct Uses {
  size_t kernels, graphs, made, waits;
};
Uses uses() {
  const emulation::GraphUse graphs = emulation::graph_use();
  return {emulation::kernels_run(), graphs.launched, graphs.made, emulation::waits()};
}

struct Shape {
  int num_heads;
  bool projection;
  size_t kernels;  // of a step
};

class CudaStepTest : public ::testing::TestWithParam<Shape> {};

// 8 kernels a layer; embed, final norm and lm_head; choice and decision; commit; five stamps; of
// the heads: their rows, a block each, projections and the merge of their best ids. The nodes of
// the graph are those, one copy of all inputs and one of all results.
TEST_P(CudaStepTest, is_one_graph_and_one_wait) {
  TinyModel source(7, ComputeType::bfloat16, 1, "cuda", kLayers);
  const Model model = source.load();
  const Heads heads = source.random_heads(model, GetParam().num_heads, GetParam().projection);
  Engine engine(model, heads, Tree::chain(GetParam().num_heads), {.max_model_len = 128});
  std::mt19937 random(3);
  engine.submit(random_prompt(random, 20, 101), {.max_tokens = 60});
  for (int i = 0; i < 4; ++i) engine.step();  // the prompt, a list, its graph, the graph again
  for (int i = 0; i < 4; ++i) {
    const Uses before = uses();
    ASSERT_EQ(engine.step().size(), 1u);
    const Uses after = uses();
    EXPECT_EQ(after.graphs - before.graphs, 1u);
    EXPECT_EQ(after.made, before.made);
    EXPECT_EQ(after.kernels - before.kernels, GetParam().kernels);
    EXPECT_EQ(after.waits - before.waits, 1u);
    EXPECT_EQ(emulation::graph_use().nodes, GetParam().kernels + 2);
  }
}

constexpr size_t kBackbone = 8 * kLayers + 3, kDecisions = 2 + 1 + 5;

INSTANTIATE_TEST_SUITE_P(all, CudaStepTest,
                         ::testing::Values(Shape{3, false, kBackbone + kDecisions + 1 + 3 + 1 + 1},
                                           Shape{3, true, kBackbone + kDecisions + 1 + 3 + 3 + 1},
                                           Shape{4, false,
                                                 kBackbone + kDecisions + 1 + 4 + 1 + 1}));

// Of a layer all kernels, of the rest the final norm, the lm_head, and the heads' blocks and
// projections: they follow a kernel, and wait for it themselves.
TEST(CudaStep, kernels_that_can_start_early_where_that_is_wanted) {
  const auto early_of_step = [] {
    TinyModel source(7, ComputeType::bfloat16, 1, "cuda", kLayers);
    const Model model = source.load();
    const Heads heads = source.random_heads(model, 3);
    Engine engine(model, heads, Tree::chain(3), {.max_model_len = 128});
    std::mt19937 random(3);
    engine.submit(random_prompt(random, 20, 101), {.max_tokens = 40});
    for (int i = 0; i < 4; ++i) engine.step();
    const size_t before = emulation::kernels_started_early();
    engine.step();
    return emulation::kernels_started_early() - before;
  };
  EXPECT_EQ(early_of_step(), 0u);
  setenv("MEDUSA_CUDA_OVERLAP", "1", 1);
  EXPECT_EQ(early_of_step(), size_t{8 * kLayers + 2 + 3 + 1});
  unsetenv("MEDUSA_CUDA_OVERLAP");
}

// With drafts and without in turns: each shape is run, then captured, then found again.
TEST(CudaStep, keeps_the_graphs_of_several_shapes) {
  TinyModel source(7, ComputeType::bfloat16, 1, "cuda");
  const Model model = source.load();
  const Heads heads = source.random_heads(model, 3);
  Engine engine(model, heads, Tree::chain(3), {.max_model_len = 128});
  std::mt19937 random(3);
  const auto prompt = random_prompt(random, 20, 101);
  std::vector<size_t> made;
  for (int round = 0; round < 3; ++round) {
    for (const bool speculative : {true, false}) {
      const size_t before = emulation::graph_use().made;
      engine.submit(prompt, {.max_tokens = 30, .speculative = speculative});
      testing::run(engine);
      made.push_back(emulation::graph_use().made - before);
    }
  }
  EXPECT_GT(made[0], 0u);
  EXPECT_GT(made[1], 0u);
  EXPECT_EQ(made[4] + made[5], 0u);
}

struct Write {
  int* to;
  int value;
  void operator()(const cuda::Stream& stream) const {
    stream.copy_to_device(to, &value, sizeof value);
  }
  bool operator==(const Write&) const = default;
};

TEST(CudaStep, a_list_that_differs_in_one_argument_is_another) {
  const cuda::Stream stream;
  cuda::GraphCache graphs(true);
  int found = 0;
  const auto launched = [&](int value) {
    const size_t before = emulation::graph_use().launched;
    cuda::LaunchList list;
    list.add(Write{&found, -1});
    list.add(Write{&found, value});
    graphs.run(stream, list);
    stream.synchronize();
    EXPECT_EQ(found, value);
    EXPECT_TRUE(list.empty());
    return emulation::graph_use().launched - before;
  };
  EXPECT_EQ(launched(5), 0u);
  EXPECT_EQ(launched(5), 1u);
  EXPECT_EQ(launched(6), 0u);
  for (int value = 10; value < 300; ++value) EXPECT_EQ(launched(value) + launched(value), 1u);
  EXPECT_EQ(launched(299), 1u);
  EXPECT_EQ(launched(5), 0u);  // the longest unused was given up
}

}  // namespace
}  // namespace medusa
