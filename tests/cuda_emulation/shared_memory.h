#pragma once

#include <cstddef>
#include <cstdint>
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
  /// To be poisoned at the start of each block of this launch. `alignment`: of its address.
  void use(unsigned alignment = 16);
  /// As the device sees it: 32 bits, aligned to no more than was asked for.
  uint32_t address() const { return address_; }
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
  uint32_t address_ = 0;
};

/// An array as kernels see it: a pointer whose indices are checked.
template <class T>
class SharedArray {
 public:
  SharedArray(SharedStorage& storage, size_t count, unsigned alignment = 16)
      : storage_(&storage), count_(count) {
    storage.use(alignment);
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

/// The device's address of a place in shared memory, and the place of one.
uint32_t shared_address(const void* at, Where where);
const void* at_shared_address(uint32_t address, size_t bytes, const char* what, Where where);

// 16 bytes that have landed, and that asynchronous products may not read yet.
void set_hidden(const void* at, bool hidden);
bool is_hidden(const void* at);

// For the emulator.
void begin_launch(size_t dynamic_bytes);
void begin_block();
void end_block();

}  // namespace medusa::emulation
