#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"

namespace medusa {

/// f32 values in a back end's memory, put there once: norm weights, rotation tables.
class DeviceVector {
 public:
  DeviceVector() = default;
  DeviceVector(Backend& backend, const std::vector<float>& values) : size_(values.size()) {
    if (values.empty()) return;
    storage_ = backend.allocate(size_ * sizeof(float));
    backend.upload({storage_.data(), DType::f32, 1, static_cast<int64_t>(size_)}, values.data());
  }

  bool empty() const { return size_ == 0; }
  /// For back ends: the host may not be able to read it.
  std::span<const float> view() const {
    return {static_cast<const float*>(storage_.data()), size_};
  }

 private:
  Buffer storage_;
  size_t size_ = 0;
};

}  // namespace medusa
