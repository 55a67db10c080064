#pragma once

#include <cstddef>

#include "base/pages.h"
#include "tensor/buffer.h"

namespace medusa::cpu {

inline Buffer page_buffer(size_t bytes) { return {map_pages(bytes), bytes, unmap_pages}; }

/// Memory between two calls of which nothing is kept. Grows when a larger shape than ever appears,
/// never shrinks.
class Scratch {
 public:
  void* reserve(size_t bytes) {
    if (bytes > buffer_.bytes()) buffer_ = page_buffer(bytes);
    return buffer_.data();
  }

 private:
  Buffer buffer_;
};

/// Hands out 64-byte aligned pieces of memory one after another; without memory it only measures.
class Carver {
 public:
  explicit Carver(void* memory) : memory_(static_cast<char*>(memory)) {}

  template <class T>
  T* take(size_t count) {
    char* piece = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += (count * sizeof(T) + 63) / 64 * 64;
    return reinterpret_cast<T*>(piece);
  }
  size_t used() const { return used_; }

 private:
  char* memory_;
  size_t used_ = 0;
};

}  // namespace medusa::cpu
