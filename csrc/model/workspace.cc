#include "model/workspace.h"

namespace medusa {

Workspace::Workspace(Backend& backend, const ModelConfig& config, DType cache, int max_rows,
                     int max_logits_rows)
    : max_rows_(max_rows), store_(backend) {
  const DType compute = backend.compute_dtype();
  const int64_t hidden = config.hidden_size;
  const int64_t q_dim = int64_t{config.num_attention_heads} * config.head_dim;
  const int64_t kv_dim = int64_t{config.num_key_value_heads} * config.head_dim;
  const int64_t layer_rows = int64_t{config.num_hidden_layers} * max_rows;
  residual_ = store_.add(DType::f32, max_rows, hidden);
  normed_ = store_.add(compute, max_rows, hidden);
  qkv_ = store_.add(DType::f32, max_rows, q_dim + 2 * kv_dim);
  q_ = store_.add(DType::f32, max_rows, q_dim);
  attended_ = store_.add(compute, max_rows, q_dim);
  mlp_ = store_.add(compute, max_rows, config.intermediate_size);
  hidden_ = store_.add(compute, max_rows, hidden);
  picked_ = store_.add(compute, max_logits_rows, hidden);
  picks_ = store_.add(DType::i32, 1, max_logits_rows);
  logits_ = store_.add(DType::f32, max_logits_rows, config.vocab_size);
  const int64_t cache_cols = config.num_key_value_heads * kv_head_cols(cache, config.head_dim);
  keys_ = store_.add(cache, layer_rows, cache_cols);
  values_ = store_.add(cache, layer_rows, cache_cols);
}

}  // namespace medusa
