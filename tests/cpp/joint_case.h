#pragma once

#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "medusa/joint_trainer.h"
#include "tiny_model.h"

namespace medusa::testing {

/// Documents of random tokens with random targets, and the memory they lie in.
class TokenData {
 public:
  TokenData(const std::vector<int32_t>& lengths, int32_t vocab, int num_heads, unsigned seed)
      : lengths_(lengths) {
    std::mt19937 random(seed);
    const int rows = std::accumulate(lengths.begin(), lengths.end(), 0);
    const auto id = [&] { return static_cast<int32_t>(random() % static_cast<unsigned>(vocab)); };
    for (int r = 0; r < rows; ++r) {
      tokens.push_back(id());
      lm_targets.push_back(r % 3 == 0 ? -1 : id());
      for (int k = 0; k < num_heads; ++k) head_targets.push_back(r % 5 == k ? -1 : id());
    }
  }
  TokenBatch batch() const { return {tokens, lengths_, lm_targets, head_targets}; }

  std::vector<int32_t> tokens, lm_targets, head_targets;

 private:
  std::vector<int32_t> lengths_;
};

/// A tiny model with all a backbone may have: biases, heads' norms, lm_head tied or not.
struct JointCase {
  explicit JointCase(bool tied = true) : model(3) {
    const int64_t d = model.config().hidden_size;
    model.config().tie_word_embeddings = tied;
    if (!tied) add("lm_head.weight", {model.config().vocab_size, d}, 0.5f);
    for (const std::string layer : {"model.layers.0.self_attn.", "model.layers.1.self_attn."}) {
      add(layer + "q_proj.bias", {d}, 0.1f);
      add(layer + "k_norm.weight", {model.config().head_dim}, 0.5f);
      add(layer + "q_norm.weight", {model.config().head_dim}, 0.5f);
    }
  }
  void add(const std::string& name, const std::vector<int64_t>& shape, float scale) {
    model.tensors()[name] = model.random(shape, scale);
  }

  /// Small and quick options: two heads, three steps.
  static JointTrainerOptions options(bool all_weights) {
    JointTrainerOptions o;
    o.training.num_heads = 2;
    o.training.num_threads = 1;
    o.stages = {{.steps = 6, .learning_rate = 1e-2f, .schedule = RateSchedule::constant}};
    o.max_rows = 64;
    o.lora_rank = 4;
    o.all_weights = all_weights;
    if (all_weights) o.target_modules.clear();
    return o;
  }
  JointTrainer trainer(const JointTrainerOptions& o, std::vector<int32_t> token_map = {},
                       bool grounded = false) {
    return JointTrainer(model.config(), model.tensors(), o, std::move(token_map), grounded);
  }

  TinyModel model;
  TokenData first{{20, 30}, 101, 2, 1}, second{{40}, 101, 2, 2};
  std::vector<TokenBatch> batches() const { return {first.batch(), second.batch()}; }
};

}  // namespace medusa::testing
