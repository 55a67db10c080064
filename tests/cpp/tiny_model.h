#pragma once

#include <cmath>
#include <deque>
#include <random>
#include <string>
#include <vector>

#include "medusa/engine.h"
#include "medusa/model.h"
#include "tensor/float8.h"

namespace medusa::testing {

/// A random Llama small enough for a test, and the memory its tensors lie in.
class TinyModel {
 public:
  explicit TinyModel(unsigned seed = 1, ComputeType compute = ComputeType::bfloat16,
                     int num_threads = 2, const std::string& device = "cpu", int num_layers = 2)
      : random_(seed) {
    config_.vocab_size = 101;
    config_.hidden_size = 64;
    config_.intermediate_size = 96;
    config_.num_hidden_layers = num_layers;
    config_.num_attention_heads = 4;
    config_.num_key_value_heads = 2;
    config_.head_dim = 16;
    config_.max_position_embeddings = 512;
    config_.tie_word_embeddings = true;
    fill();
    options_ = {.compute_type = compute, .num_threads = num_threads, .device = device};
  }

  ModelConfig& config() { return config_; }
  TensorMap& tensors() { return tensors_; }
  Model load() const { return Model::load(config_, tensors_, options_); }

  /// Random heads: V2, or V1 when `projection`.
  Heads random_heads(const Model& model, int num_heads, bool projection = false,
                     bool grounded = false) {
    Heads::Source source;
    source.grounded = grounded;
    const int64_t d = config_.hidden_size;
    for (int head = 0; head < num_heads; ++head) {
      source.residual.push_back({{random({d, grounded ? 2 * d : d}, 0.3f), random({d}, 0.1f)}});
      if (projection) source.projection.push_back(random({config_.vocab_size, d}, 0.3f));
    }
    return Heads::load(model, source);
  }

  /// Linear weights become F8_E4M3, all blocks of `height` by `width` under a scale.
  void make_float8(int64_t height, int64_t width) {
    for (auto& [name, tensor] : tensors_) {
      if (name.find("_proj") == std::string::npos) continue;
      const int64_t rows = tensor.shape[0], cols = tensor.shape[1];
      const auto* values = static_cast<const float*>(tensor.data);
      std::vector<uint8_t>& codes = codes_.emplace_back();
      for (int64_t i = 0; i < rows * cols; ++i) codes.push_back(nearest_code(values[i] / 0.002f));
      std::vector<float>& scales =
          storage_.emplace_back(((rows + height - 1) / height) * ((cols + width - 1) / width));
      for (size_t i = 0; i < scales.size(); ++i) {
        scales[i] = 0.002f + 0.0001f * static_cast<float>(i % 7);
      }
      tensor = {
          codes.data(), codes.size(), DType::f8_e4m3, {rows, cols}, {scales.data(), height, width}};
    }
  }

  HostTensor random(const std::vector<int64_t>& shape, float scale) {
    int64_t count = 1;
    for (const int64_t extent : shape) count *= extent;
    std::vector<float>& values = storage_.emplace_back(count);
    std::normal_distribution<float> normal(0.0f, scale);
    for (float& value : values) value = normal(random_);
    return {values.data(), values.size() * sizeof(float), DType::f32, shape};
  }

 private:
  static uint8_t nearest_code(float value) {
    uint8_t code = 0;
    while (code < 0x7e && float8_to_float(code) < std::abs(value)) ++code;
    return static_cast<uint8_t>(value < 0 ? code | 0x80 : code);
  }
  void add(const std::string& name, const std::vector<int64_t>& shape, float scale) {
    tensors_[name] = random(shape, scale);
  }
  void add_ones(const std::string& name, int64_t size) {
    tensors_[name] = random({size}, 0.1f);
    for (float& value : storage_.back()) value += 1.0f;
  }
  void fill() {
    const int64_t d = config_.hidden_size, inner = config_.intermediate_size;
    const int64_t kv = int64_t{config_.num_key_value_heads} * config_.head_dim;
    add("model.embed_tokens.weight", {config_.vocab_size, d}, 0.5f);
    add_ones("model.norm.weight", d);
    for (int i = 0; i < config_.num_hidden_layers; ++i) {
      const std::string layer = "model.layers." + std::to_string(i) + ".";
      add_ones(layer + "input_layernorm.weight", d);
      add_ones(layer + "post_attention_layernorm.weight", d);
      add(layer + "self_attn.q_proj.weight", {d, d}, 0.2f);
      add(layer + "self_attn.k_proj.weight", {kv, d}, 0.2f);
      add(layer + "self_attn.v_proj.weight", {kv, d}, 0.2f);
      add(layer + "self_attn.o_proj.weight", {d, d}, 0.2f);
      add(layer + "mlp.gate_proj.weight", {inner, d}, 0.2f);
      add(layer + "mlp.up_proj.weight", {inner, d}, 0.2f);
      add(layer + "mlp.down_proj.weight", {d, inner}, 0.2f);
    }
  }

  std::mt19937 random_;
  std::deque<std::vector<float>> storage_;
  std::deque<std::vector<uint8_t>> codes_;
  ModelConfig config_;
  TensorMap tensors_;
  LoadOptions options_;
};

inline std::vector<int32_t> random_prompt(std::mt19937& random, int size, int vocab) {
  std::vector<int32_t> prompt(size);
  for (int32_t& token : prompt) token = static_cast<int32_t>(random() % vocab);
  return prompt;
}

/// Runs everything that was submitted; answers by request id.
inline std::map<int64_t, std::vector<int32_t>> run(Engine& engine) {
  std::map<int64_t, std::vector<int32_t>> answers;
  while (engine.has_unfinished()) {
    for (const StepOutput& output : engine.step()) {
      auto& answer = answers[output.request_id];
      answer.insert(answer.end(), output.tokens.begin(), output.tokens.end());
    }
  }
  return answers;
}

}  // namespace medusa::testing
