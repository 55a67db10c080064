#include "model/llama.h"

#include <algorithm>
#include <cmath>
#include <ranges>

#include "backend/ops.h"
#include "base/check.h"
#include "model/load.h"

namespace medusa {

Llama::Llama(Backend& backend, const ModelConfig& config, const TensorMap& tensors)
    : config_(config) {
  const int64_t vocab = config.vocab_size, hidden = config.hidden_size;
  const TensorReader reader(tensors);
  embedding_ = reader.matrix(backend, "model.embed_tokens.weight", vocab, hidden);
  if (!config.tie_word_embeddings) {
    lm_head_ = reader.matrix(backend, "lm_head.weight", vocab, hidden);
  }
  final_norm_ = reader.vector(backend, "model.norm.weight", hidden);
  for (int i = 0; i < config.num_hidden_layers; ++i) {
    layers_.push_back(load_layer(backend, tensors, i));
  }
}

Llama::Layer Llama::load_layer(Backend& backend, const TensorMap& tensors, int index) const {
  const int64_t hidden = config_.hidden_size, intermediate = config_.intermediate_size;
  const int64_t q_dim = int64_t{config_.num_attention_heads} * config_.head_dim;
  const int64_t kv_dim = int64_t{config_.num_key_value_heads} * config_.head_dim;
  const std::string prefix = text("model.layers.", index, ".");
  const std::string attn = prefix + "self_attn.";
  const std::string mlp = prefix + "mlp.";
  const TensorReader reader(tensors);

  Layer layer;
  layer.input_norm = reader.vector(backend, prefix + "input_layernorm.weight", hidden);
  layer.post_attention_norm =
      reader.vector(backend, prefix + "post_attention_layernorm.weight", hidden);
  layer.q_norm = reader.optional_vector(backend, attn + "q_norm.weight", config_.head_dim);
  layer.k_norm = reader.optional_vector(backend, attn + "k_norm.weight", config_.head_dim);
  check<ModelFormatError>(layer.q_norm.empty() == layer.k_norm.empty(), attn,
                          "q_norm.weight and k_norm.weight: expected both or neither");
  layer.qkv = reader.packed(backend, {attn + "q_proj", attn + "k_proj", attn + "v_proj"},
                            {q_dim, kv_dim, kv_dim}, hidden, Pack::concatenate);
  layer.o = reader.packed(backend, {attn + "o_proj"}, {hidden}, q_dim, Pack::concatenate);
  layer.gate_up = reader.packed(backend, {mlp + "gate_proj", mlp + "up_proj"},
                                {intermediate, intermediate}, hidden, Pack::interleave);
  layer.down =
      reader.packed(backend, {mlp + "down_proj"}, {hidden}, intermediate, Pack::concatenate);
  return layer;
}

void Llama::forward(Backend& backend, const RowBatch& batch, const KvLayout& cache,
                    const Rope& rope, Workspace& ws) const {
  const int64_t rows = batch.num_rows();
  const float eps = config_.rms_norm_eps;
  ops::embed(backend, ws.residual(rows), embedding_, batch.tokens);
  for (int i = 0; i < config_.num_hidden_layers; ++i) {
    const Layer& layer = layers_[i];
    ops::rms_norm(backend, ws.normed(rows), ws.residual(rows), layer.input_norm.view(), eps);
    attention(backend, layer, i, batch, cache, rope, ws);
    ops::rms_norm(backend, ws.normed(rows), ws.residual(rows), layer.post_attention_norm.view(),
                  eps);
    mlp(backend, layer, rows, ws);
  }
  ops::rms_norm(backend, ws.hidden(rows), ws.residual(rows), final_norm_.view(), eps);
}

void Llama::attention(Backend& backend, const Layer& layer, int index, const RowBatch& batch,
                      const KvLayout& cache, const Rope& rope, Workspace& ws) const {
  const int64_t rows = batch.num_rows();
  const bool norm = !layer.q_norm.empty();
  const QkvSplit split{.q = ws.q(rows),
                       .keys = ws.keys(index, rows),
                       .values = ws.values(index, rows),
                       .q_norm = norm ? layer.q_norm.view().data() : nullptr,
                       .k_norm = norm ? layer.k_norm.view().data() : nullptr,
                       .norm_eps = config_.rms_norm_eps,
                       .num_heads = config_.num_attention_heads,
                       .num_kv_heads = config_.num_key_value_heads,
                       .head_dim = config_.head_dim};
  const AttentionInputs inputs{.q = split.q,
                               .keys = split.keys,
                               .values = split.values,
                               .cache = &cache,
                               .layer = index,
                               .num_heads = config_.num_attention_heads,
                               .sliding_window = config_.sliding_window,
                               .scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim))};
  ops::linear(backend, ws.qkv(rows), ws.normed(rows), layer.qkv, Epilogue::store);
  ops::rope(backend, split, ws.qkv(rows), batch.positions, rope);
  ops::tree_attention(backend, ws.attended(rows), inputs, batch);
  ops::linear(backend, ws.residual(rows), ws.attended(rows), layer.o, Epilogue::add);
}

void Llama::mlp(Backend& backend, const Layer& layer, int64_t rows, Workspace& ws) const {
  ops::linear(backend, ws.mlp(rows), ws.normed(rows), layer.gate_up, Epilogue::silu_mul);
  ops::linear(backend, ws.residual(rows), ws.mlp(rows), layer.down, Epilogue::add);
}

LogitsProduct Llama::product(Backend& backend, std::span<const int32_t> rows, int64_t batch_rows,
                             Workspace& ws) const {
  const auto count = static_cast<int64_t>(rows.size());
  Tensor picked = ws.hidden(batch_rows);
  if (!std::ranges::equal(rows, std::views::iota(0, static_cast<int>(batch_rows)))) {
    picked = ws.picked(count);
    backend.upload(ws.picks(count), rows.data());
    ops::gather_rows(backend, picked, ws.hidden(batch_rows), ws.picks(count));
  }
  return {.x = picked, .weight = &lm_head(), .logits = ws.logits(count)};
}

void Llama::logits(Backend& backend, std::span<const int32_t> rows, int64_t batch_rows,
                   Workspace& ws) const {
  const LogitsProduct product = this->product(backend, rows, batch_rows, ws);
  ops::linear(backend, product.logits, product.x, *product.weight, Epilogue::store);
}

std::vector<const Weight*> Llama::matrices() const {
  std::vector<const Weight*> all{&lm_head()};
  for (const Layer& layer : layers_) {
    all.insert(all.end(), {&layer.qkv, &layer.o, &layer.gate_up, &layer.down});
  }
  return all;
}

size_t Llama::step_bytes() const {
  size_t total = 0;
  for (const Weight* matrix : matrices()) total += matrix->bytes();
  return total;
}

std::map<std::string, int64_t> Llama::weight_formats() const {
  std::map<std::string, int64_t> formats;
  for (const Weight* matrix : matrices()) {
    for (const WeightSegment& s : matrix->segments) {
      formats[std::string(name(s.dtype))] += s.num_rows * matrix->in_features;
    }
  }
  return formats;
}

size_t Llama::weight_bytes() const {
  return step_bytes() + (config_.tie_word_embeddings ? 0 : embedding_.bytes());
}

}  // namespace medusa
