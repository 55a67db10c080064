#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "medusa/model.h"
#include "model/device_vector.h"

namespace medusa {

/// Finds tensors by name, checks their shapes, and packs or widens them. Every error is a
/// ModelFormatError that names the tensor, what was expected and what was found.
class TensorReader {
 public:
  explicit TensorReader(const TensorMap& tensors) : tensors_(tensors) {}

  const HostTensor& get(const std::string& name, const std::vector<int64_t>& shape) const;
  const HostTensor* find(const std::string& name, const std::vector<int64_t>& shape) const;

  DeviceVector vector(Backend& backend, const std::string& name, int64_t size) const;
  DeviceVector optional_vector(Backend& backend, const std::string& name,
                               int64_t size) const;  // or empty

  Weight matrix(Backend& backend, const std::string& name, int64_t out, int64_t in) const;
  /// `modules` + ".weight" of shapes (outs[i], in), with ".bias" where the file has one.
  Weight packed(Backend& backend, const std::vector<std::string>& modules,
                const std::vector<int64_t>& outs, int64_t in, Pack pack) const;

 private:
  const TensorMap& tensors_;
};

/// A small tensor widened to float; refuses values that are not finite.
std::vector<float> widen(const HostTensor& tensor, const std::string& name);

/// Throws ModelFormatError unless every field is in range and consistent.
void check_config(const ModelConfig& config);

/// Throws ModelFormatError naming the tensor unless it has this shape.
void check_shape(const HostTensor& tensor, const std::vector<int64_t>& shape,
                 const std::string& name);

}  // namespace medusa
