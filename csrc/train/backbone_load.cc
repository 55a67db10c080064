#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "model/load.h"
#include "model/rope_table.h"
#include "tensor/quants.h"
#include "train/backbone.h"
#include "train/backbone_tensors.h"

namespace medusa {
namespace {

FrozenMatrix frozen(const TensorMap& tensors, const std::string& name, int64_t out, int64_t in) {
  const HostTensor& t = TensorReader(tensors).get(name, {out, in});
  const int64_t block = block_elements(t.dtype);
  check<ModelFormatError>(is_weight_dtype(t.dtype) && in % block == 0, name,
                          ": expected a weight type whose blocks divide ", in, " columns, found ",
                          medusa::name(t.dtype));
  const auto bytes = static_cast<size_t>(out * (in / block)) * block_bytes(t.dtype);
  check<ModelFormatError>(t.bytes == bytes, name, ": expected ", bytes, " bytes, found ", t.bytes);
  return {t.data, t.dtype, out, in};
}

int64_t widest(const ModelConfig& c) {
  return std::max<int64_t>(
      {c.hidden_size, c.intermediate_size, int64_t{c.num_attention_heads} * c.head_dim});
}

}  // namespace

Backbone::Backbone(BackboneTrainBackend& backend, const ModelConfig& config,
                   const TensorMap& tensors, const JointTrainerOptions& options)
    : backend_(backend),
      config_(config),
      dtype_(backend.compute_dtype()),
      q_cols_(int64_t{config.num_attention_heads} * config.head_dim),
      kv_cols_(int64_t{config.num_key_value_heads} * config.head_dim),
      scale_(options.lora_alpha / static_cast<float>(options.lora_rank)),
      max_rows_((options.max_rows + 31) / 32 * 32),
      trains_all_(options.all_weights),
      parameters_(backend, trained_tensors(config, tensors, options)),
      workspace_(backend, max_rows_, options.all_weights ? 0 : widest(config),
                 Lora::padded_rank(options.lora_rank)) {
  check(kv_cols_ % 32 == 0,
        "training needs num_key_value_heads · head_dim to be a multiple of 32, ", "found ",
        kv_cols_);
  if (trains_all_) {
    inputs_ = backend.allocate_panels(max_rows_, widest(config));
  }
  const int64_t hidden = config.hidden_size;
  embedding_ = load_matrix(tensors, "model.embed_tokens.weight", config.vocab_size, hidden);
  lm_head_.weight = config.tie_word_embeddings
                        ? embedding_.tied()
                        : load_matrix(tensors, "lm_head.weight", config.vocab_size, hidden);
  attach(lm_head_, "lm_head");
  lm_head_a_ = parameter(text(kAdapterPrefix, "lm_head.lora_A.weight"));
  lm_head_b_ = parameter(text(kAdapterPrefix, "lm_head.lora_B.weight"));
  final_norm_ = load_vector(tensors, "model.norm.weight", hidden);
  for (int i = 0; i < config.num_hidden_layers; ++i) layers_.push_back(load_layer(tensors, i));
  make_rope_table();
  allocate(max_rows_);
}

const Parameter* Backbone::parameter(const std::string& name) const {
  for (const Parameter& p : parameters_.all()) {
    if (p.name == name) return &p;
  }
  return nullptr;
}

void Backbone::attach(AdaptedLinear& linear, const std::string& module) {
  const Parameter* a = parameter(kAdapterPrefix + module + ".lora_A.weight");
  if (a == nullptr) return;
  const Parameter* b = parameter(kAdapterPrefix + module + ".lora_B.weight");
  linear.lora = std::make_unique<Lora>(backend_, workspace_, *a, *b, scale_);
}

BackboneMatrix Backbone::load_matrix(const TensorMap& tensors, const std::string& name, int64_t out,
                                     int64_t in) const {
  const FrozenMatrix stored = frozen(tensors, name, out, in);
  return {stored, backend_.hold(stored), parameter(name)};
}

BackboneVector Backbone::find_vector(const TensorMap& tensors, const std::string& name,
                                     int64_t size) const {
  const HostTensor* found = TensorReader(tensors).find(name, {size});
  if (found == nullptr) return {};
  return {backend_, widen(*found, name), parameter(name)};
}

BackboneVector Backbone::load_vector(const TensorMap& tensors, const std::string& name,
                                     int64_t size) const {
  TensorReader(tensors).get(name, {size});
  return find_vector(tensors, name, size);
}

AdaptedLinear Backbone::load(const TensorMap& tensors, const std::string& module, int64_t out,
                             int64_t in) {
  AdaptedLinear linear;
  linear.weight = load_matrix(tensors, module + ".weight", out, in);
  linear.bias = find_vector(tensors, module + ".bias", out);
  attach(linear, module);
  return linear;
}

Backbone::Layer Backbone::load_layer(const TensorMap& tensors, int index) {
  const std::string prefix = text("model.layers.", index, "."), attn = prefix + "self_attn.";
  const int64_t hidden = config_.hidden_size;
  Layer layer;
  layer.input_norm = load_vector(tensors, prefix + "input_layernorm.weight", hidden);
  layer.post_attention_norm =
      load_vector(tensors, prefix + "post_attention_layernorm.weight", hidden);
  layer.q_norm = find_vector(tensors, attn + "q_norm.weight", config_.head_dim);
  layer.k_norm = find_vector(tensors, attn + "k_norm.weight", config_.head_dim);
  check<ModelFormatError>(layer.q_norm.empty() == layer.k_norm.empty(), attn,
                          "q_norm.weight and k_norm.weight: expected both or neither");
  AdaptedLinear* const linears[] = {&layer.q,    &layer.k,  &layer.v,   &layer.o,
                                    &layer.gate, &layer.up, &layer.down};
  const std::vector<Module> modules = layer_modules(config_, index);
  for (size_t i = 0; i < modules.size(); ++i) {
    *linears[i] = load(tensors, modules[i].name, modules[i].out, modules[i].in);
  }
  return layer;
}

void Backbone::make_rope_table() {
  const std::vector<double> frequencies = rope_frequencies(config_);
  std::vector<float> cos, sin;
  for (int64_t position = 0; position < max_rows_; ++position) {
    for (const double frequency : frequencies) {
      const double angle = static_cast<double>(position) * frequency;
      cos.push_back(static_cast<float>(std::cos(angle)));
      sin.push_back(static_cast<float>(std::sin(angle)));
    }
  }
  cos_ = BackboneVector(backend_, cos, nullptr);
  sin_ = BackboneVector(backend_, sin, nullptr);
}

void Backbone::allocate(int64_t rows) {
  const int64_t hidden = config_.hidden_size, inner = config_.intermediate_size;
  const int64_t wide = widest(config_);
  const auto buffer = [&](DType dtype, int64_t count, int64_t cols) {
    return backend_.allocate(static_cast<size_t>(count * cols) * block_bytes(dtype));
  };
  checkpoints_ = buffer(DType::f32, (config_.num_hidden_layers + 1) * rows, hidden);
  x_ = buffer(DType::f32, rows, hidden);
  for (Buffer* b : {&normed_, &dropped_normed_}) *b = buffer(dtype_, rows, hidden);
  for (Buffer* b : {&attended_, &dropped_attended_}) *b = buffer(dtype_, rows, q_cols_);
  for (Buffer* b : {&inner_, &dropped_inner_}) *b = buffer(dtype_, rows, inner);
  for (Buffer* b : {&q_, &raw_q_, &dq_}) *b = buffer(DType::f32, rows, q_cols_);
  for (Buffer* b : {&k_, &v_, &raw_k_, &dk_, &dv_}) *b = buffer(DType::f32, rows, kv_cols_);
  for (Buffer* b : {&gate_, &up_}) *b = buffer(DType::f32, rows, inner);
  for (Buffer* b : {&wide_grad_, &dropped_grad_}) *b = buffer(DType::f32, rows, wide);
  for (Buffer* b : {&narrow_a_, &narrow_b_, &narrow_c_}) *b = buffer(dtype_, rows, wide);
}

}  // namespace medusa
