#pragma once

#include <cstddef>
#include <cstdint>

#include "medusa/dtype.h"
#include "tensor/elements.h"

namespace medusa {

/// A dense (rows, cols) row-major view. Does not own; trivially copyable.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::f32;
  int64_t rows = 0;
  int64_t cols = 0;

  size_t row_bytes() const { return static_cast<size_t>(cols) * block_bytes(dtype); }
  size_t bytes() const { return static_cast<size_t>(rows) * row_bytes(); }

  template <class T>
  T* row(int64_t r) const {
    return reinterpret_cast<T*>(static_cast<char*>(data) + static_cast<size_t>(r) * row_bytes());
  }
  /// Rows first .. first + count.
  Tensor slice(int64_t first, int64_t count) const {
    return {row<char>(first), dtype, count, cols};
  }
};

}  // namespace medusa
