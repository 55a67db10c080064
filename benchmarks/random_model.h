#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "backend/row_batch.h"
#include "medusa/config.h"
#include "medusa/model.h"
#include "random_weights.h"

namespace medusa::benchmark {

/// Random weights of one format; all layers view the same memory, and each is packed for itself.
struct RandomModel {
  DType format;
  std::vector<uint8_t> matrix, vector;
  TensorMap tensors;

  RandomModel(const ModelConfig& c, DType dtype)
      : format(dtype),
        matrix(random_bytes(dtype, c.hidden_size * most_rows(c))),
        vector(random_bytes(DType::bf16, c.hidden_size)) {
    const int64_t d = c.hidden_size, inner = c.intermediate_size;
    const int64_t q = int64_t{c.num_attention_heads} * c.head_dim;
    const int64_t kv = int64_t{c.num_key_value_heads} * c.head_dim;
    add("model.embed_tokens.weight", {c.vocab_size, d});
    if (!c.tie_word_embeddings) add("lm_head.weight", {c.vocab_size, d});
    add("model.norm.weight", {d});
    for (int i = 0; i < c.num_hidden_layers; ++i) {
      const std::string layer = "model.layers." + std::to_string(i) + ".";
      add(layer + "input_layernorm.weight", {d});
      add(layer + "post_attention_layernorm.weight", {d});
      add(layer + "self_attn.q_proj.weight", {q, d});
      add(layer + "self_attn.k_proj.weight", {kv, d});
      add(layer + "self_attn.v_proj.weight", {kv, d});
      add(layer + "self_attn.o_proj.weight", {d, q});
      add(layer + "mlp.gate_proj.weight", {inner, d});
      add(layer + "mlp.up_proj.weight", {inner, d});
      add(layer + "mlp.down_proj.weight", {d, inner});
    }
  }
  // Of a matrix with hidden_size columns.
  static int64_t most_rows(const ModelConfig& c) {
    const int64_t heads = c.num_attention_heads + 2 * c.num_key_value_heads;
    return std::max<int64_t>({c.vocab_size, c.intermediate_size, heads * c.head_dim});
  }
  void add(const std::string& name, const std::vector<int64_t>& shape) {
    tensors[name] = view(shape);
  }
  /// A tensor of this shape over the same memory.
  HostTensor view(const std::vector<int64_t>& shape) const {
    const bool is_vector = shape.size() == 1;
    const DType dtype = is_vector ? DType::bf16 : format;
    int64_t elements = 1;
    for (const int64_t extent : shape) elements *= extent;
    const auto blocks = static_cast<size_t>(elements / block_elements(dtype));
    return {(is_vector ? vector : matrix).data(), blocks * block_bytes(dtype), dtype, shape};
  }
};

/// A root at `context` with `rows` - 1 nodes below it, a quarter of them at depth 1.
inline RowBatch tree_batch(int rows, int context, const int32_t* pages) {
  RowBatch batch;
  for (int row = 0; row < rows; ++row) {
    const int parent = row == 0 ? -1 : (row - 1) / 4;
    batch.tokens.push_back(row);
    batch.parents.push_back(parent);
    batch.positions.push_back(row == 0 ? context : batch.positions[parent] + 1);
  }
  batch.sequences = {{0, rows, context, pages, rows == 1}};
  return batch;
}

}  // namespace medusa::benchmark
