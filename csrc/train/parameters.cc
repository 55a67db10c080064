#include "train/parameters.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace medusa {
namespace {

int64_t elements(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (int64_t size : shape) count *= size;
  return count;
}

size_t padded(const Parameter& p) { return static_cast<size_t>(elements(p.shape) + 15) / 16 * 16; }

/// The array a span lies in, with the gap behind it: element-wise verbs want multiples of 16.
std::span<float> with_gap(std::span<float> x) { return {x.data(), (x.size() + 15) / 16 * 16}; }

}  // namespace

Parameters::Parameters(TrainBackend& backend, const TrainerOptions& options, int64_t input,
                       int64_t hidden, int64_t vocab)
    : layers_(options.num_layers),
      per_head_(2 * static_cast<size_t>(options.num_layers) + (options.version == 1 ? 1 : 0)) {
  for (int head = 0; head < options.num_heads; ++head) {
    for (int layer = 0; layer < layers_; ++layer) {
      add(text(head, ".", layer, ".linear.weight"), {hidden, layer == 0 ? input : hidden});
      add(text(head, ".", layer, ".linear.bias"), {hidden});
    }
    if (options.version == 1) add(text(head, ".", layers_, ".weight"), {vocab, hidden});
  }
  bind(backend);
}

Parameters::Parameters(TrainBackend& backend,
                       const std::vector<std::pair<std::string, std::vector<int64_t>>>& tensors) {
  for (const auto& [name, shape] : tensors) add(name, shape);
  bind(backend);
}

void Parameters::add(std::string name, std::vector<int64_t> shape) {
  Parameter p;
  p.name = std::move(name);
  p.shape = std::move(shape);
  all_.push_back(std::move(p));
}

void Parameters::bind(TrainBackend& backend) {
  size_t total = 0;
  for (const Parameter& p : all_) total += padded(p);
  storage_ = backend.allocate(4 * total * sizeof(float));
  float* weights = static_cast<float*>(storage_.data());
  gradients_ = {weights + total, total};
  for (Parameter& p : all_) {
    const size_t count = static_cast<size_t>(elements(p.shape));
    p.weights = {weights, count};
    p.gradients = {weights + total, count};
    p.mean = {weights + 2 * total, count};
    p.square = {weights + 3 * total, count};
    weights += padded(p);
  }
}

void Parameters::zero_gradients(TrainBackend& backend) {
  backend.zero({gradients_.data(), DType::f32, 1, static_cast<int64_t>(gradients_.size())});
}

double Parameters::grad_norm(TrainBackend& backend) const {
  return std::sqrt(backend.squared_norm(gradients_));
}

void Parameters::update(TrainBackend& backend, const AdamW& options) {
  for (const Parameter& p : all_) {
    AdamW own = options;
    if (p.shape.size() == 1) own.weight_decay = 0;
    backend.adamw(with_gap(p.weights), with_gap(p.gradients), with_gap(p.mean), with_gap(p.square),
                  own);
  }
}

}  // namespace medusa
