#include "train/backbone_tensors.h"

#include <algorithm>

#include "base/check.h"
#include "train/lora.h"

namespace medusa {
namespace {

constexpr const char* kModules[] = {"q_proj",    "k_proj",  "v_proj",    "o_proj",
                                    "gate_proj", "up_proj", "down_proj", "lm_head"};

std::vector<Module> all_modules(const ModelConfig& config) {
  std::vector<Module> modules;
  for (int i = 0; i < config.num_hidden_layers; ++i) {
    for (Module& m : layer_modules(config, i)) modules.push_back(std::move(m));
  }
  modules.push_back({"lm_head", config.vocab_size, config.hidden_size});
  return modules;
}

NamedShapes adapter_tensors(const ModelConfig& config, const JointTrainerOptions& options) {
  const auto& wanted = options.target_modules;
  for (const std::string& name : wanted) {
    check(std::find(std::begin(kModules), std::end(kModules), name) != std::end(kModules),
          "target_modules: expected some of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, "
          "down_proj and lm_head, found ",
          name);
    check(std::count(wanted.begin(), wanted.end(), name) == 1, "target_modules names ", name,
          " twice");
  }
  const int64_t rank = Lora::padded_rank(options.lora_rank);
  NamedShapes out;
  for (const Module& m : all_modules(config)) {
    const std::string last = m.name.substr(m.name.rfind('.') + 1);
    if (std::find(wanted.begin(), wanted.end(), last) == wanted.end()) continue;
    out.push_back({kAdapterPrefix + m.name + ".lora_A.weight", {rank, m.in}});
    out.push_back({kAdapterPrefix + m.name + ".lora_B.weight", {m.out, rank}});
  }
  return out;
}

NamedShapes norms(const ModelConfig& config, const TensorMap& tensors) {
  NamedShapes out;
  for (int i = 0; i < config.num_hidden_layers; ++i) {
    const std::string layer = text("model.layers.", i, ".");
    out.push_back({layer + "input_layernorm.weight", {config.hidden_size}});
    out.push_back({layer + "post_attention_layernorm.weight", {config.hidden_size}});
    for (const char* norm : {"q_norm.weight", "k_norm.weight"}) {
      const std::string name = layer + "self_attn." + norm;
      if (tensors.contains(name)) out.push_back({name, {config.head_dim}});
    }
  }
  out.push_back({"model.norm.weight", {config.hidden_size}});
  return out;
}

NamedShapes backbone_tensors(const ModelConfig& config, const TensorMap& tensors) {
  NamedShapes out = norms(config, tensors);
  out.push_back({"model.embed_tokens.weight", {config.vocab_size, config.hidden_size}});
  for (const Module& m : all_modules(config)) {
    if (m.name == "lm_head" && config.tie_word_embeddings) continue;
    out.push_back({m.name + ".weight", {m.out, m.in}});
    if (tensors.contains(m.name + ".bias")) out.push_back({m.name + ".bias", {m.out}});
  }
  return out;
}

}  // namespace

std::vector<Module> layer_modules(const ModelConfig& c, int layer) {
  const int64_t q = int64_t{c.num_attention_heads} * c.head_dim;
  const int64_t kv = int64_t{c.num_key_value_heads} * c.head_dim;
  const std::string attn = text("model.layers.", layer, ".self_attn.");
  const std::string mlp = text("model.layers.", layer, ".mlp.");
  return {{attn + "q_proj", q, c.hidden_size},
          {attn + "k_proj", kv, c.hidden_size},
          {attn + "v_proj", kv, c.hidden_size},
          {attn + "o_proj", c.hidden_size, q},
          {mlp + "gate_proj", c.intermediate_size, c.hidden_size},
          {mlp + "up_proj", c.intermediate_size, c.hidden_size},
          {mlp + "down_proj", c.hidden_size, c.intermediate_size}};
}

NamedShapes trained_tensors(const ModelConfig& config, const TensorMap& tensors,
                            const JointTrainerOptions& options) {
  return options.all_weights ? backbone_tensors(config, tensors) : adapter_tensors(config, options);
}

}  // namespace medusa
