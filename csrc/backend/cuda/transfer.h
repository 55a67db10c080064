#pragma once

#include <algorithm>
#include <bit>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "backend/cuda/launch_list.h"
#include "backend/cuda/runtime.h"

namespace medusa::cuda {

/// Device memory that grows when a larger shape than ever appears, never shrinks. Holds zeros when
/// it is new.
class DeviceScratch {
 public:
  template <class T>
  T* reserve(const Stream& stream, int64_t count) {
    const size_t bytes = std::max<size_t>(static_cast<size_t>(count) * sizeof(T), 256);
    if (bytes > buffer_.bytes()) grow(stream, bytes);
    return static_cast<T*>(buffer_.data());
  }

 private:
  // What was queued, or written down, may still use the old memory.
  void grow(const Stream& stream, size_t bytes) {
    Buffer larger = device_memory(bytes);
    std::swap(buffer_, larger);
    if (LaunchList* record = stream.record()) {
      if (larger) record->keep(std::move(larger));
    } else {
      stream.synchronize();
    }
  }
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

/// Small arrays of a recorded step: written to pinned memory one behind another, copied in one
/// piece to their twin on the device. Steps of one shape find each array at the same place, as long
/// as none outgrows the next power of two.
class StepInputs {
 public:
  /// Nothing of the last step is under way any more.
  void begin() {
    if (regions_.size() > 1) {
      size_t total = 0;
      for (const Region& region : regions_) total += region.pinned.bytes();
      regions_.clear();
      add_region(total);
    }
    if (!regions_.empty()) regions_[0].used = regions_[0].copied = 0;
    ++step_;
  }
  /// Whether begin() will replace memory of the last step.
  bool outgrown() const { return regions_.size() > 1; }
  /// What was put since begin(); nothing where that lies in several pieces.
  struct Piece {
    const void* pinned = nullptr;
    const void* device = nullptr;
    size_t bytes = 0;
  };
  Piece so_far() const {
    if (regions_.size() != 1) return {};
    return {regions_[0].pinned.data(), regions_[0].device.data(), regions_[0].used};
  }
  /// Number of steps so far.
  int64_t step() const { return step_; }

  /// Bytes that an array of `bytes` may grow to without moving others.
  static size_t room(size_t bytes) { return std::bit_ceil(std::max(bytes, kPiece)); }

  /// Where the copy will lie on the device.
  void* put(const void* from, size_t bytes) {
    const size_t needed = room(bytes);
    if (regions_.empty()) add_region(std::max(needed, kLeast));
    if (regions_.back().used + needed > regions_.back().pinned.bytes()) {
      add_region(std::max(needed, 2 * regions_.back().pinned.bytes()));
    }
    Region& region = regions_.back();
    const size_t at = region.used;
    region.used += needed;
    if (bytes > 0) std::memcpy(static_cast<char*>(region.pinned.data()) + at, from, bytes);
    return static_cast<char*>(region.device.data()) + at;
  }

  /// Adds the copy of what was put since the last call.
  void add_copies(LaunchList& list) {
    for (Region& region : regions_) {
      if (region.used == region.copied) continue;
      list.add_upload(static_cast<char*>(region.device.data()) + region.copied,
                      static_cast<const char*>(region.pinned.data()) + region.copied,
                      region.used - region.copied);
      region.copied = region.used;
    }
  }

 private:
  static constexpr size_t kPiece = 256, kLeast = size_t{1} << 16;
  struct Region {
    Buffer pinned, device;
    size_t used = 0, copied = 0;
  };
  void add_region(size_t bytes) {
    regions_.push_back({pinned_memory(bytes), device_memory(bytes)});
  }
  std::vector<Region> regions_;  // more than one only in a step that needs more than any before
  int64_t step_ = 0;
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

/// Results that are brought to where the host wants them, all at once.
class Arrivals {
 public:
  /// `to` is filled by the next finish().
  void expect(const Stream& stream, void* to, const void* from, size_t bytes) {
    const size_t needed = (bytes + 255) / 256 * 256;
    if (used_ + needed > buffer_.bytes()) {
      finish(stream);
      if (needed > buffer_.bytes()) buffer_ = pinned_memory(std::max(needed, kLeast));
    }
    stream.copy_to_host(static_cast<char*>(buffer_.data()) + used_, from, bytes);
    under_way_.push_back({to, used_, bytes});
    used_ += needed;
  }
  /// Waits for the stream.
  void finish(const Stream& stream) {
    const std::vector<Piece> arrived = std::exchange(under_way_, {});
    used_ = 0;
    stream.synchronize();
    for (const Piece& piece : arrived) {
      std::memcpy(piece.to, static_cast<const char*>(buffer_.data()) + piece.at, piece.bytes);
    }
  }

 private:
  static constexpr size_t kLeast = size_t{1} << 16;
  struct Piece {
    void* to;
    size_t at, bytes;
  };
  Buffer buffer_;
  std::vector<Piece> under_way_;
  size_t used_ = 0;
};

}  // namespace medusa::cuda
