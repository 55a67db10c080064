#pragma once

#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

#include "backend/cuda/runtime.h"

namespace medusa::cuda {

/// Device memory that grows when a larger shape than ever appears, never shrinks. Holds zeros when
/// it is new.
class DeviceScratch {
 public:
  template <class T>
  T* reserve(const Stream& stream, int64_t count) {
    const size_t bytes = std::max<size_t>(static_cast<size_t>(count) * sizeof(T), 256);
    if (bytes > buffer_.bytes()) {
      stream.synchronize();  // what was queued may still use the old memory
      buffer_ = device_memory(bytes);
    }
    return static_cast<T*>(buffer_.data());
  }

 private:
  Buffer buffer_;
};

/// Pinned memory that copies to the device start from. A piece is not written again before its copy
/// has happened.
class Staging {
 public:
  void copy(const Stream& stream, void* to, const void* from, size_t bytes) {
    const size_t needed = (bytes + 255) / 256 * 256;
    if (used_ + needed > buffer_.bytes()) {
      stream.synchronize();
      used_ = 0;
      if (needed > buffer_.bytes()) buffer_ = pinned_memory(std::max(needed, kLeast));
    }
    auto* piece = static_cast<char*>(buffer_.data()) + used_;
    used_ += needed;
    std::memcpy(piece, from, bytes);
    stream.copy_to_device(to, piece, bytes);
  }

 private:
  static constexpr size_t kLeast = size_t{1} << 20;
  Buffer buffer_;
  size_t used_ = 0;
};

/// Pinned memory that results arrive in.
class Landing {
 public:
  /// Waits for the stream. Stays as it is until the next call.
  const void* fetch(const Stream& stream, const void* from, size_t bytes) {
    if (bytes > buffer_.bytes()) buffer_ = pinned_memory(std::max<size_t>(bytes, 4096));
    if (bytes > 0) stream.copy_to_host(buffer_.data(), from, bytes);
    stream.synchronize();
    return buffer_.data();
  }

 private:
  Buffer buffer_;
};

/// A stream, and what verbs share on it.
struct Queue {
  Stream stream;
  Staging staging;
  Landing landing;
  DeviceScratch scratch, results;  // of the verb that runs
  DeviceScratch tickets;           // zeros between kernels
};

/// A small host array's twin on the device. What has not changed since the last time, as from layer
/// to layer, is not copied again.
class Mirror {
 public:
  template <class T>
  const T* of(Queue& queue, std::span<const T> values) {
    T* device = device_.reserve<T>(queue.stream, static_cast<int64_t>(values.size()));
    const auto* bytes = reinterpret_cast<const char*>(values.data());
    if (device == known_ && std::ranges::equal(std::span(bytes, values.size_bytes()), last_)) {
      return device;
    }
    last_.assign(bytes, bytes + values.size_bytes());
    known_ = device;
    if (!values.empty()) queue.staging.copy(queue.stream, device, bytes, values.size_bytes());
    return device;
  }

 private:
  DeviceScratch device_;
  const void* known_ = nullptr;  // where last_ has been copied to
  std::vector<char> last_;
};

}  // namespace medusa::cuda
