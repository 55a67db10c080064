#pragma once

#include <algorithm>
#include <vector>

#include "backend/backend.h"
#include "tensor/buffer.h"
#include "tensor/tensor.h"

namespace medusa {

/// Owns the memory of tensors that are allocated together, once.
class TensorStore {
 public:
  explicit TensorStore(Backend& backend) : backend_(&backend) {}

  Tensor add(DType dtype, int64_t rows, int64_t cols) {
    Tensor tensor{nullptr, dtype, rows, cols};
    buffers_.push_back(backend_->allocate(std::max<size_t>(tensor.bytes(), 64)));
    tensor.data = buffers_.back().data();
    return tensor;
  }

  size_t bytes() const {
    size_t total = 0;
    for (const Buffer& buffer : buffers_) total += buffer.bytes();
    return total;
  }

 private:
  Backend* backend_;
  std::vector<Buffer> buffers_;
};

}  // namespace medusa
