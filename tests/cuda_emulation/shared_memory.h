#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "emulator.h"

// Shared memory of the one block that runs. Every array lies apart from the others, between bytes
// that nobody may touch, and holds NaN at a block's start.
namespace medusa::emulation {

/// The memory of one array, and where it was declared.
class SharedStorage {
 public:
  SharedStorage(const char* name, size_t bytes, Where where);
  ~SharedStorage();
  SharedStorage(const SharedStorage&) = delete;
  SharedStorage& operator=(const SharedStorage&) = delete;

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  /// To be poisoned at the start of each block of this launch.
  void use();
  void poison() const;
  /// Throws Error if the bytes around it were written.
  void check_guards() const;
  [[noreturn]] void fail_index(long long index, size_t count) const;

 private:
  const char* name_;
  size_t bytes_;
  Where where_;
  std::unique_ptr<unsigned char[]> memory_;
  void* data_;
  unsigned long long launch_ = 0;  // the last one that used it
};

/// An array as kernels see it: a pointer whose indices are checked.
template <class T>
class SharedArray {
 public:
  SharedArray(SharedStorage& storage, size_t count) : storage_(&storage), count_(count) {
    storage.use();
  }
  template <class I>
  T& operator[](I index) const {
    const auto at = static_cast<long long>(index);
    if (at < 0 || at >= static_cast<long long>(count_)) storage_->fail_index(at, count_);
    return static_cast<T*>(storage_->data())[at];
  }
  template <class I>
  T* operator+(I offset) const {
    const auto at = static_cast<long long>(offset);
    if (at < 0 || at > static_cast<long long>(count_)) storage_->fail_index(at, count_);
    return static_cast<T*>(storage_->data()) + at;
  }
  operator T*() const { return static_cast<T*>(storage_->data()); }  // NOLINT: as arrays do

 private:
  SharedStorage* storage_;
  size_t count_;
};

/// The dynamic array of the running launch.
SharedStorage& dynamic_shared(Where where);

/// Throws Error unless these bytes lie within one array of the running block.
void check_shared(const void* at, size_t bytes, const char* what, Where where);

// For the emulator.
void begin_launch(size_t dynamic_bytes);
void begin_block();
void end_block();

}  // namespace medusa::emulation
