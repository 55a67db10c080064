#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "medusa/model.h"
#include "model/device_vector.h"
#include "model/kv_cache.h"
#include "model/rope_table.h"
#include "model/workspace.h"

namespace medusa {

/// The Llama family: Llama, Vicuna, Mistral, SmolLM2, Qwen2 (qkv bias), Qwen3 (q/k norm).
class Llama {
 public:
  Llama(Backend& backend, const ModelConfig& config, const TensorMap& tensors);

  /// Leaves the hidden states after the final norm in workspace.hidden(rows), and fresh keys and
  /// values in workspace.keys and .values.
  void forward(Backend& backend, const RowBatch& batch, const KvLayout& cache, const Rope& rope,
               Workspace& workspace) const;
  /// lm_head over `rows`, each below `batch_rows`, of the last forward pass: ready to be multiplied
  /// into workspace.logits(rows.size()).
  LogitsProduct product(Backend& backend, std::span<const int32_t> rows, int64_t batch_rows,
                        Workspace& workspace) const;
  /// The same, multiplied.
  void logits(Backend& backend, std::span<const int32_t> rows, int64_t batch_rows,
              Workspace& workspace) const;

  const ModelConfig& config() const { return config_; }
  const Weight& embedding() const { return embedding_; }  // (vocab, hidden)
  const Weight& lm_head() const { return config_.tie_word_embeddings ? embedding_ : lm_head_; }
  size_t weight_bytes() const;
  std::map<std::string, int64_t> weight_formats() const;  // type's name to elements
  size_t step_bytes() const;  // without the embedding table, of which a step reads a few rows

 private:
  struct Layer {
    DeviceVector input_norm, post_attention_norm;  // (hidden)
    DeviceVector q_norm, k_norm;                   // (head_dim), Qwen3 only
    Weight qkv;                                    // (q_dim + 2 · kv_dim, hidden)
    Weight o;                                      // (hidden, q_dim)
    Weight gate_up;                                // (2 · intermediate, hidden), interleaved
    Weight down;                                   // (hidden, intermediate)
  };

  Layer load_layer(Backend& backend, const TensorMap& tensors, int index) const;
  std::vector<const Weight*> matrices() const;  // of one forward pass
  void attention(Backend& backend, const Layer& layer, int index, const RowBatch& batch,
                 const KvLayout& cache, const Rope& rope, Workspace& workspace) const;
  void mlp(Backend& backend, const Layer& layer, int64_t rows, Workspace& workspace) const;

  ModelConfig config_;
  Weight embedding_;  // (vocab, hidden)
  Weight lm_head_;    // (vocab, hidden); empty when tied
  DeviceVector final_norm_;
  std::vector<Layer> layers_;
};

}  // namespace medusa
