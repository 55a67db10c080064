#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backend/train_backend.h"
#include "medusa/trainer.h"

namespace medusa {

/// All trained tensors in four flat f32 arrays (weights, gradients, two moments). Every tensor
/// starts at a multiple of 16; the gaps stay zero.
class Parameters {
 public:
  /// `input`: columns that the first layer of a head sees.
  Parameters(TrainBackend& backend, const TrainerOptions& options, int64_t input, int64_t hidden,
             int64_t vocab);
  /// Tensors of these names and shapes, in order.
  Parameters(TrainBackend& backend,
             const std::vector<std::pair<std::string, std::vector<int64_t>>>& tensors);

  std::span<const Parameter> all() const { return all_; }
  const Parameter& weight(int head, int layer) const { return all_[index(head, layer)]; }
  const Parameter& bias(int head, int layer) const { return all_[index(head, layer) + 1]; }
  const Parameter& projection(int head) const { return all_[index(head, layers_)]; }  // V1 only

  void zero_gradients(TrainBackend& backend);
  double grad_norm(TrainBackend& backend) const;
  void update(TrainBackend& backend, const AdamW& options);  // biases without decay

 private:
  size_t index(int head, int layer) const {
    return static_cast<size_t>(head) * per_head_ + 2 * static_cast<size_t>(layer);
  }
  void add(std::string name, std::vector<int64_t> shape);
  void bind(TrainBackend& backend);

  int layers_ = 0;
  size_t per_head_ = 0;  // tensors
  std::vector<Parameter> all_;
  Buffer storage_;
  std::span<float> gradients_;
};

}  // namespace medusa
