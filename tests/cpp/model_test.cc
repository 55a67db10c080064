#include "medusa/model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "medusa/error.h"
#include "model/load.h"
#include "model/rope_table.h"
#include "tiny_model.h"

namespace medusa {
namespace {

using testing::TinyModel;

template <class Change>
std::string load_error(Change change) {
  TinyModel tiny;
  change(tiny);
  try {
    tiny.load();
  } catch (const ModelFormatError& error) {
    return error.what();
  }
  return "no error";
}

float* values(TinyModel& tiny, const std::string& name) {
  return static_cast<float*>(const_cast<void*>(tiny.tensors().at(name).data));
}

TEST(Model, names_the_tensor_that_is_missing) {
  const std::string name = "model.layers.1.mlp.down_proj.weight";
  EXPECT_EQ(load_error([&](TinyModel& tiny) { tiny.tensors().erase(name); }),
            name + ": expected a tensor of shape (64, 96), found none");
}

TEST(Model, names_the_tensor_of_the_wrong_shape) {
  const std::string name = "model.layers.0.self_attn.k_proj.weight";
  EXPECT_EQ(load_error([&](TinyModel& tiny) { tiny.tensors()[name].shape = {32, 60}; }),
            name + ": expected shape (32, 64), found (32, 60)");
}

TEST(Model, refuses_tensors_shorter_than_their_shape) {
  const std::string name = "model.layers.0.mlp.up_proj.weight";
  EXPECT_NE(load_error([&](TinyModel& tiny) { tiny.tensors()[name].bytes -= 4; }), "no error");
  EXPECT_NE(load_error([&](TinyModel& tiny) { tiny.tensors()["model.norm.weight"].bytes = 1; }),
            "no error");
}

TEST(Model, refuses_weights_that_are_not_finite) {
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    for (const char* name : {"model.embed_tokens.weight", "model.norm.weight",
                             "model.layers.1.self_attn.v_proj.weight"}) {
      EXPECT_NE(load_error([&](TinyModel& tiny) { values(tiny, name)[7] = bad; }), "no error")
          << name;
    }
  }
}

TEST(Model, refuses_configurations_that_contradict_themselves) {
  const auto error = [](auto change) {
    return load_error([&](TinyModel& tiny) { change(tiny.config()); });
  };
  EXPECT_NE(error([](ModelConfig& c) { c.hidden_size = 63; }), "no error");
  EXPECT_NE(error([](ModelConfig& c) { c.num_key_value_heads = 3; }), "no error");
  EXPECT_NE(error([](ModelConfig& c) { c.head_dim = 0; }), "no error");
  EXPECT_NE(error([](ModelConfig& c) { c.rope_theta = -1; }), "no error");
  EXPECT_NE(error([](ModelConfig& c) { c.rope_freq_factors = {1, 2, 3}; }), "no error");
  EXPECT_NE(error([](ModelConfig& c) { c.vocab_size = -5; }), "no error");
}

TEST(Model, logits_do_not_depend_on_the_chunks) {
  TinyModel tiny;
  const Model model = tiny.load();
  std::mt19937 random(1);
  const auto tokens = testing::random_prompt(random, 150, 101);
  const auto whole = model.logits(tokens);
  for (const std::vector<int>& chunks :
       {std::vector<int>{1, 149}, {64, 64, 22}, {100, 1, 1, 1, 47}, std::vector<int>(150, 1)}) {
    EXPECT_EQ(model.logits(tokens, chunks), whole);
  }
  EXPECT_THROW(model.logits(tokens, std::vector<int>{149}), InvalidArgument);
  EXPECT_THROW(model.logits({}), InvalidArgument);
}

TEST(Model, logits_do_not_depend_on_the_threads) {
  std::mt19937 random(1);
  const auto tokens = testing::random_prompt(random, 90, 101);
  const auto one = TinyModel(1, ComputeType::bfloat16, 1).load().logits(tokens);
  EXPECT_EQ(TinyModel(1, ComputeType::bfloat16, 3).load().logits(tokens), one);
}

TEST(Model, a_window_hides_what_lies_before_it) {
  TinyModel tiny;
  tiny.config().sliding_window = 20;
  tiny.config().num_hidden_layers = 1;
  const Model model = tiny.load();
  std::mt19937 random(1);
  auto tokens = testing::random_prompt(random, 100, 101);
  const auto row = [&](int position) {
    const auto logits = model.logits(tokens);
    return std::vector<float>(logits.begin() + position * 101,
                              logits.begin() + (position + 1) * 101);
  };
  const auto before = row(99), inside = row(98);
  tokens[79] = (tokens[79] + 1) % 101;  // 99 sees 80..99, 98 sees 79..98
  EXPECT_EQ(row(99), before);
  EXPECT_NE(row(98), inside);
}

TEST(Model, hidden_states_are_the_same_alone_and_together) {
  TinyModel tiny;
  const Model model = tiny.load();
  std::mt19937 random(1);
  std::vector<std::vector<int32_t>> sequences;
  for (const int size : {3, 0, 200, 300, 188, 511}) {
    sequences.push_back(testing::random_prompt(random, size, 101));
  }
  const auto collect = [&](std::span<const std::vector<int32_t>> some) {
    std::vector<std::vector<uint16_t>> out(some.size());
    model.hidden_states(some, [&](int sequence, int first, int count, const void* rows) {
      EXPECT_EQ(out[sequence].size(), static_cast<size_t>(first) * 64);
      const auto* from = static_cast<const uint16_t*>(rows);
      out[sequence].insert(out[sequence].end(), from, from + count * 64);
    });
    return out;
  };
  const auto together = collect(sequences);
  for (size_t i = 0; i < sequences.size(); ++i) {
    EXPECT_EQ(collect(std::span(sequences).subspan(i, 1))[0], together[i]) << i;
  }
}

// Llama 3.1: factor 8, low 1, high 4, original length 8192, theta 500000, head_dim 128. Values by
// transformers' _compute_llama3_parameters.
TEST(RopeTable, llama3_scaling_keeps_short_waves_and_stretches_long_ones) {
  ModelConfig config;
  config.head_dim = 128;
  config.rope_theta = 500000.0f;
  config.rope_scaling = RopeScaling::llama3;
  config.rope_factor = 8;
  const auto scaled = rope_frequencies(config);
  config.rope_scaling = RopeScaling::none;
  const auto plain = rope_frequencies(config);
  EXPECT_EQ(scaled[0], plain[0]);
  EXPECT_DOUBLE_EQ(scaled[63], plain[63] / 8);
  for (int i = 0; i < 64; ++i) {
    EXPECT_LE(scaled[i], plain[i]);
    EXPECT_GE(scaled[i], plain[i] / 8 * 0.999999);
  }
}

}  // namespace
}  // namespace medusa
