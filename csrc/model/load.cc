#include "model/load.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "tensor/quants.h"

namespace medusa {

namespace {

// "(576, 1536)"
std::string shape_text(const std::vector<int64_t>& shape) {
  std::string out = "(";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + ")";
}

}  // namespace

void check_shape(const HostTensor& tensor, const std::vector<int64_t>& shape,
                 const std::string& name) {
  check<ModelFormatError>(tensor.shape == shape, name, ": expected shape ", shape_text(shape),
                          ", found ", shape_text(tensor.shape));
}

const HostTensor* TensorReader::find(const std::string& name,
                                     const std::vector<int64_t>& shape) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) return nullptr;
  check_shape(it->second, shape, name);
  return &it->second;
}

const HostTensor& TensorReader::get(const std::string& name,
                                    const std::vector<int64_t>& shape) const {
  const HostTensor* tensor = find(name, shape);
  check<ModelFormatError>(tensor != nullptr, name, ": expected a tensor of shape ",
                          shape_text(shape), ", found none");
  return *tensor;
}

std::vector<float> widen(const HostTensor& tensor, const std::string& name) {
  int64_t count = 1;
  for (const int64_t extent : tensor.shape) count *= extent;
  const int64_t per_block = block_elements(tensor.dtype);
  check<ModelFormatError>(
      count % per_block == 0 && tensor.bytes == count / per_block * block_bytes(tensor.dtype), name,
      ": expected ", count, " elements of ", medusa::name(tensor.dtype), ", found ", tensor.bytes,
      " bytes");
  std::vector<float> out(count);
  dequantize(out.data(), tensor.data, tensor.dtype, count);
  const bool finite = std::all_of(out.begin(), out.end(), [](float v) { return std::isfinite(v); });
  check<ModelFormatError>(finite, name, ": expected finite values, found NaN or infinity");
  return out;
}

DeviceVector TensorReader::vector(Backend& backend, const std::string& name, int64_t size) const {
  return {backend, widen(get(name, {size}), name)};
}

DeviceVector TensorReader::optional_vector(Backend& backend, const std::string& name,
                                           int64_t size) const {
  const HostTensor* tensor = find(name, {size});
  return tensor == nullptr ? DeviceVector() : DeviceVector(backend, widen(*tensor, name));
}

Weight TensorReader::matrix(Backend& backend, const std::string& name, int64_t out,
                            int64_t in) const {
  return backend.prepare_weight({.parts = {&get(name, {out, in})}, .name = name.c_str()});
}

Weight TensorReader::packed(Backend& backend, const std::vector<std::string>& modules,
                            const std::vector<int64_t>& outs, int64_t in, Pack pack) const {
  WeightSource source{.pack = pack, .name = modules[0].c_str()};
  bool any_bias = false;
  for (size_t i = 0; i < modules.size(); ++i) {
    source.parts.push_back(&get(modules[i] + ".weight", {outs[i], in}));
    source.biases.push_back(find(modules[i] + ".bias", {outs[i]}));
    any_bias |= source.biases.back() != nullptr;
  }
  if (!any_bias) source.biases.clear();
  return backend.prepare_weight(source);
}

namespace {

void check_range(const char* field, int64_t value, int64_t low, int64_t high) {
  check<ModelFormatError>(value >= low && value <= high, "config: expected ", field, " from ", low,
                          " to ", high, ", found ", value);
}

void check_multiple(const char* field, int64_t value, int64_t of) {
  check<ModelFormatError>(value % of == 0, "config: expected ", field, " to be a multiple of ", of,
                          ", found ", value);
}

void check_rope(const ModelConfig& config) {
  const auto positive = [](float value) { return std::isfinite(value) && value > 0; };
  check<ModelFormatError>(positive(config.rope_theta), "config: expected rope_theta > 0, found ",
                          config.rope_theta);
  check<ModelFormatError>(positive(config.rope_factor), "config: expected rope_factor > 0, found ",
                          config.rope_factor);
  const auto& factors = config.rope_freq_factors;
  check<ModelFormatError>(
      factors.empty() || static_cast<int>(factors.size()) == config.head_dim / 2,
      "config: expected ", config.head_dim / 2, " rope_freq_factors, found ", factors.size());
  check<ModelFormatError>(std::all_of(factors.begin(), factors.end(), positive),
                          "config: expected rope_freq_factors > 0");
  if (config.rope_scaling != RopeScaling::llama3) return;
  check<ModelFormatError>(positive(config.rope_low_freq_factor) &&
                              config.rope_high_freq_factor > config.rope_low_freq_factor &&
                              config.rope_original_max_position_embeddings > 0,
                          "config: expected 0 < rope_low_freq_factor < rope_high_freq_factor and a "
                          "positive rope_original_max_position_embeddings");
}

}  // namespace

void check_config(const ModelConfig& config) {
  check_range("vocab_size", config.vocab_size, 1, 1 << 24);
  check_range("hidden_size", config.hidden_size, 1, 1 << 20);
  check_range("intermediate_size", config.intermediate_size, 1, 1 << 20);
  check_range("num_hidden_layers", config.num_hidden_layers, 1, 4096);
  check_range("num_attention_heads", config.num_attention_heads, 1, 4096);
  check_range("num_key_value_heads", config.num_key_value_heads, 1, config.num_attention_heads);
  check_range("head_dim", config.head_dim, 16, 512);
  check_range("max_position_embeddings", config.max_position_embeddings, 1, 1 << 28);
  check_range("sliding_window", config.sliding_window, 0, 1 << 28);
  check_multiple("hidden_size", config.hidden_size, 32);
  check_multiple("intermediate_size", config.intermediate_size, 32);
  check_multiple("head_dim", config.head_dim, 16);
  check_multiple("num_attention_heads · head_dim",
                 int64_t{config.num_attention_heads} * config.head_dim, 32);
  check_multiple("num_attention_heads", config.num_attention_heads, config.num_key_value_heads);
  check<ModelFormatError>(std::isfinite(config.rms_norm_eps) && config.rms_norm_eps >= 0,
                          "config: expected rms_norm_eps >= 0, found ", config.rms_norm_eps);
  check_rope(config);
}

}  // namespace medusa
