#include "model/workspace.h"

#include <algorithm>

namespace medusa {

Workspace::Workspace(Backend& backend, const ModelConfig& config, int max_rows, int max_logits_rows)
    : max_rows_(max_rows) {
  const DType compute = backend.compute_dtype();
  const int64_t hidden = config.hidden_size;
  const int64_t q_dim = int64_t{config.num_attention_heads} * config.head_dim;
  const int64_t kv_dim = int64_t{config.num_key_value_heads} * config.head_dim;
  const int64_t layer_rows = int64_t{config.num_hidden_layers} * max_rows;
  residual_ = make(backend, DType::f32, max_rows, hidden);
  normed_ = make(backend, compute, max_rows, hidden);
  qkv_ = make(backend, DType::f32, max_rows, q_dim + 2 * kv_dim);
  q_ = make(backend, DType::f32, max_rows, q_dim);
  attended_ = make(backend, compute, max_rows, q_dim);
  mlp_ = make(backend, compute, max_rows, config.intermediate_size);
  hidden_ = make(backend, compute, max_rows, hidden);
  picked_ = make(backend, compute, max_logits_rows, hidden);
  logits_ = make(backend, DType::f32, max_logits_rows, config.vocab_size);
  keys_ = make(backend, compute, layer_rows, kv_dim);
  values_ = make(backend, compute, layer_rows, kv_dim);
}

Tensor Workspace::make(Backend& backend, DType dtype, int64_t rows, int64_t cols) {
  Tensor tensor{nullptr, dtype, rows, cols};
  buffers_.push_back(backend.allocate(std::max<size_t>(tensor.bytes(), 64)));
  tensor.data = buffers_.back().data();
  return tensor;
}

size_t Workspace::bytes() const {
  size_t total = 0;
  for (const Buffer& buffer : buffers_) total += buffer.bytes();
  return total;
}

}  // namespace medusa
