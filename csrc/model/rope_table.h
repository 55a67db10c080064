#pragma once

#include <vector>

#include "backend/backend.h"
#include "medusa/config.h"
#include "model/device_vector.h"

namespace medusa {

/// cos and sin of every (position, frequency), computed in double and rounded once.
class RopeTable {
 public:
  RopeTable(Backend& backend, const ModelConfig& config, int num_positions);

  Rope view() const { return {cos_.view().data(), sin_.view().data(), interleaved_}; }
  size_t bytes() const { return cos_.view().size_bytes() + sin_.view().size_bytes(); }

 private:
  DeviceVector cos_, sin_;  // (num_positions, head_dim / 2)
  bool interleaved_;
};

/// Angular frequencies (head_dim / 2) after linear or llama3 scaling (Llama 3.1, "rope_scaling").
std::vector<double> rope_frequencies(const ModelConfig& config);

}  // namespace medusa
