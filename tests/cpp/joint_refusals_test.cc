#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "joint_case.h"
#include "medusa/error.h"

namespace medusa {
namespace {

using testing::JointCase;

/// The message of what `call` throws; empty when it throws nothing.
std::string message(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

struct BadOption {
  const char* said;  // part of the message
  std::function<void(JointTrainerOptions&)> set;
};

TEST(JointRefusals, options_out_of_range_by_name) {
  using O = JointTrainerOptions;
  constexpr float kNan = NAN;
  const BadOption all[] = {
      {"version must be 1 or 2, found 3", [](O& o) { o.training.version = 3; }},
      {"num_heads must be 1 to 32, found 0", [](O& o) { o.training.num_heads = 0; }},
      {"num_layers must be 1 to 32, found 33", [](O& o) { o.training.num_layers = 33; }},
      {"head_decay", [](O& o) { o.training.head_decay = kNan; }},
      {"weight_decay", [](O& o) { o.training.weight_decay = -1; }},
      {"weight_decay", [](O& o) { o.training.weight_decay = kNan; }},
      {"max_grad_norm", [](O& o) { o.training.max_grad_norm = kNan; }},
      {"beta1 must be in [0, 1), found 1", [](O& o) { o.training.beta1 = 1; }},
      {"beta2 must be in [0, 1)", [](O& o) { o.training.beta2 = -0.5; }},
      {"epsilon must be positive", [](O& o) { o.training.epsilon = 0; }},
      {"stages must have at least one", [](O& o) { o.stages.clear(); }},
      {"steps of a stage must be 1 to", [](O& o) { o.stages[0].steps = -1; }},
      {"learning_rate must be positive", [](O& o) { o.stages[0].learning_rate = kNan; }},
      {"learning_rate must be positive", [](O& o) { o.stages[0].learning_rate = INFINITY; }},
      {"warmup_steps must be in [0, 6)", [](O& o) { o.stages[0].warmup_steps = 6; }},
      {"heads_learning_rate_multiple", [](O& o) { o.heads_learning_rate_multiple = 0; }},
      {"heads_coefficient", [](O& o) { o.heads_coefficient = INFINITY; }},
      {"heads_schedule_ratio", [](O& o) { o.heads_schedule_ratio = 1.5f; }},
      {"lora_rank must be 1 to 1024, found 0", [](O& o) { o.lora_rank = 0; }},
      {"lora_rank must be 1 to 1024, found 9999", [](O& o) { o.lora_rank = 9999; }},
      {"lora_alpha", [](O& o) { o.lora_alpha = INFINITY; }},
      {"lora_dropout must be in [0, 1), found 1", [](O& o) { o.lora_dropout = 1; }},
      {"target_modules must name a module", [](O& o) { o.target_modules.clear(); }},
      {"target_modules: expected some of", [](O& o) { o.target_modules = {"q"}; }},
      {"target_modules names q_proj twice", [](O& o) { o.target_modules = {"q_proj", "q_proj"}; }},
      {"target_modules must be empty", [](O& o) { o.all_weights = true; }},
      {"max_rows must be 32 to", [](O& o) { o.max_rows = 31; }},
  };
  JointCase c;
  for (const BadOption& bad : all) {
    JointTrainerOptions o = JointCase::options(false);
    bad.set(o);
    const std::string said = message([&] { c.trainer(o); });
    EXPECT_NE(said.find(bad.said), std::string::npos) << bad.said << " in: " << said;
  }
}

TEST(JointRefusals, batches_by_what_is_wrong_in_them) {
  JointCase c;
  JointTrainer trainer = c.trainer(JointCase::options(true));
  const auto refused = [&](const TokenBatch& batch, const std::string& said) {
    const std::string found = message([&] { trainer.step(std::vector<TokenBatch>{batch}); });
    EXPECT_NE(found.find(said), std::string::npos) << said << " in: " << found;
  };
  const TokenBatch good = c.first.batch();
  const std::vector<int32_t> negative{-1, 51}, huge{20, INT32_MAX}, few{20, 29}, none;
  const auto changed = [&](std::vector<int32_t> ids, size_t at, int32_t to) {
    ids[at] = to;
    return ids;
  };
  const auto high = changed(c.first.tokens, 3, 101), low = changed(c.first.tokens, 3, -1);
  const auto target = changed(c.first.lm_targets, 7, 101);
  const auto head = changed(c.first.head_targets, 9, -2);
  const std::vector<int32_t> nothing(50, -1), nothing_for_heads(100, -1), many(65, 0), one{65};
  const std::span<const int32_t> tokens = good.tokens, lengths = good.lengths, lm = good.lm_targets,
                                 heads = good.head_targets;
  refused({none, none, none, none}, "tokens: expected 1 to 64 of a batch, found 0");
  refused({many, one, many, many}, "tokens: expected 1 to 64 of a batch, found 65");
  refused({tokens, negative, lm, heads}, "found one of -1 at token 0");
  refused({tokens, huge, lm, heads}, "lengths: expected documents of 50 tokens in all");
  refused({tokens, few, lm, heads}, "lengths: expected a sum of 50, found 49");
  refused({high, lengths, lm, heads}, "token 3: expected 0 to 100, found 101");
  refused({low, lengths, lm, heads}, "token 3: expected 0 to 100, found -1");
  refused({tokens, lengths, lm.first(49), heads}, "lm_targets: expected 50, found 49");
  refused({tokens, lengths, target, heads}, "lm_target 7: expected -1 to 100, found 101");
  refused({tokens, lengths, lm, heads.first(50)}, "head_targets: expected 50 · 2, found 50");
  refused({tokens, lengths, lm, head}, "head_target 9: expected -1 to 100, found -2");
  refused({tokens, lengths, nothing, nothing_for_heads}, "need at least one target");
  EXPECT_NE(message([&] { trainer.step({}); }).find("at least one target"), std::string::npos);
  EXPECT_NE(message([&] { trainer.evaluate(good, {}); }).find("scores must have"),
            std::string::npos);
  EXPECT_NE(message([&] { trainer.set_num_steps(7); }).find("num_steps must be in [0, 6], found 7"),
            std::string::npos);
  EXPECT_EQ(trainer.num_steps(), 0);
}

TEST(JointRefusals, tensors_by_name_and_token_maps) {
  const auto refused = [](const std::function<void(JointCase&)>& damage, const std::string& said,
                          std::vector<int32_t> token_map = {}) {
    for (const bool all_weights : {false, true}) {
      JointCase c;
      damage(c);
      const std::string found =
          message([&] { c.trainer(JointCase::options(all_weights), token_map); });
      EXPECT_NE(found.find(said), std::string::npos) << said << " in: " << found;
    }
  };
  const std::string up = "model.layers.1.mlp.up_proj.weight", norm = "model.norm.weight";
  const std::string bias = "model.layers.0.self_attn.q_proj.bias";
  refused([&](JointCase& c) { c.model.tensors().erase(up); },
          up + ": expected a tensor of shape (96, 64), found none");
  refused([&](JointCase& c) { c.add(up, {96, 32}, 1); },
          up + ": expected shape (96, 64), found (96, 32)");
  refused([&](JointCase& c) { c.model.tensors()[up].bytes -= 4; }, up + ": expected 24576 bytes");
  refused([&](JointCase& c) { c.model.tensors()[up].dtype = DType::i32; },
          up + ": expected a weight type");
  refused([&](JointCase& c) { c.add(bias, {32}, 1); }, bias + ": expected shape (64), found (32)");
  refused([&](JointCase& c) { c.add(norm, {64}, INFINITY); }, norm + ": expected finite values");
  refused([&](JointCase& c) { c.model.tensors().erase("model.layers.0.self_attn.k_norm.weight"); },
          "expected both or neither");
  refused([&](JointCase& c) { c.model.config().hidden_size = 33; }, "hidden_size to be a multiple");
  refused([](JointCase&) {}, "token_map: expected 0 to 100, found 101", {3, 101});
  refused([](JointCase&) {}, "token_map: expected 0 to 100, found -1", {-1});
  refused([](JointCase&) {}, "token_map names 3 twice", {3, 5, 3});
}

}  // namespace
}  // namespace medusa
