#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "emulator.h"

// Shared memory of the blocks that run together. Every array of every block lies apart from the
// others, between bytes that nobody may touch, and holds NaN at a block's start.
namespace medusa::emulation {

/// One array: its memory in each block of the cluster, and where it was declared.
class SharedStorage {
 public:
  SharedStorage(const char* name, size_t bytes, Where where);
  ~SharedStorage();
  SharedStorage(const SharedStorage&) = delete;
  SharedStorage& operator=(const SharedStorage&) = delete;

  void* data(int rank) const { return copies_[static_cast<size_t>(rank)].get() + kGuard; }
  void* data() const;  // of the running block
  size_t bytes() const { return bytes_; }
  /// To be poisoned at the start of each cluster of this launch. `alignment`: of its address.
  void use(unsigned alignment = 16);
  /// As the device sees it: 32 bits, aligned to no more than was asked for.
  uint32_t address() const { return address_; }
  void poison() const;
  /// Throws Error if the bytes around it were written.
  void check_guards() const;
  [[noreturn]] void fail_index(long long index, size_t count) const;

 private:
  static constexpr size_t kGuard = 128;

  void add_copy();
  bool intact(const unsigned char* memory) const;

  const char* name_;
  size_t bytes_;
  Where where_;
  std::vector<std::unique_ptr<unsigned char[]>> copies_;  // [rank]
  unsigned long long launch_ = 0;                         // the last one that used it
  uint32_t address_ = 0;
};

/// An array as kernels see it: a pointer whose indices are checked.
template <class T>
class SharedArray {
 public:
  SharedArray(SharedStorage& storage, size_t count, unsigned alignment = 16)
      : storage_(&storage), count_(count) {
    storage.use(alignment);
    data_ = static_cast<T*>(storage.data());
  }
  template <class I>
  T& operator[](I index) const {
    const auto at = static_cast<long long>(index);
    if (at < 0 || at >= static_cast<long long>(count_)) storage_->fail_index(at, count_);
    return data_[at];
  }
  template <class I>
  T* operator+(I offset) const {
    const auto at = static_cast<long long>(offset);
    if (at < 0 || at > static_cast<long long>(count_)) storage_->fail_index(at, count_);
    return data_ + at;
  }
  operator T*() const { return data_; }  // NOLINT: as arrays do

 private:
  SharedStorage* storage_;
  size_t count_;
  T* data_;
};

/// The dynamic array of the running launch.
SharedStorage& dynamic_shared(Where where);

/// Throws Error unless these bytes lie within one array of the running block.
void check_shared(const void* at, size_t bytes, const char* what, Where where);

/// The same place in the block of another rank of the cluster.
void* at_peer(const void* at, size_t bytes, int rank, const char* what, Where where);

/// The device's address of a place in shared memory, and the place of one.
uint32_t shared_address(const void* at, Where where);
const void* at_shared_address(uint32_t address, size_t bytes, const char* what, Where where);

// 16 bytes that have landed, and that asynchronous products may not read yet.
void set_hidden(const void* at, bool hidden);
bool is_hidden(const void* at);

// For the emulator.
void begin_launch(size_t dynamic_bytes, int cluster_blocks);
void begin_cluster();
void end_cluster();
void use_shared_memory_of(int rank);

}  // namespace medusa::emulation
