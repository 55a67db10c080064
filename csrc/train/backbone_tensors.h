#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "medusa/joint_trainer.h"

namespace medusa {

/// A linear layer: "model.layers.0.self_attn.q_proj".
struct Module {
  std::string name;
  int64_t out, in;
};

using NamedShapes = std::vector<std::pair<std::string, std::vector<int64_t>>>;

std::vector<Module> layer_modules(const ModelConfig& config, int layer);

constexpr const char* kAdapterPrefix = "base_model.model.";

/// Tensors that options train beside the heads: adapters, with PEFT's names, or all of the
/// backbone's, with Hugging Face's; of these biases and heads' norms where `tensors` has them.
NamedShapes trained_tensors(const ModelConfig& config, const TensorMap& tensors,
                            const JointTrainerOptions& options);

}  // namespace medusa
