#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "base/function_ref.h"
#include "tensor/buffer.h"

struct CUstream_st;
struct CUevent_st;
struct CUgraphExec_st;

// The few calls of the CUDA runtime that the back end needs, as owners. Errors are DeviceError, or
// OutOfMemory, with what can be done about them; destructors never throw.
namespace medusa::cuda {

struct DeviceInfo {
  std::string name;
  int major = 0;  // compute capability
  int minor = 0;
};

/// Devices that a driver offers; 0 without one.
int device_count();
/// Why device_count() is 0, with what can be done about it.
std::string why_no_device();
DeviceInfo describe(int device);
/// The device that this thread's calls go to.
void use_device(int device);
/// Of the device in use, in bytes.
size_t free_memory();

Buffer device_memory(size_t bytes);  // zeroed, 256-byte aligned
// Of the device, zeroed; the host reads and writes it too when nothing queued uses it.
Buffer managed_memory(size_t bytes);
Buffer pinned_memory(size_t bytes);  // of the host; copies from and to it overlap with kernels

class LaunchList;

/// A grid of blocks, the threads of a block, and its dynamic shared memory.
struct LaunchShape {
  unsigned x = 1, y = 1, z = 1;
  int threads = 0;
  size_t shared_bytes = 0;
  bool early = false;                     // may start before the kernel ahead of it has ended
  unsigned cluster_x = 1, cluster_y = 1;  // neighbours that run together
  bool operator==(const LaunchShape&) const = default;
};

/// A queue of copies and kernels. What is queued happens in order, at the latest in synchronize().
class Stream {
 public:
  Stream();
  /// Somebody else's, who keeps it.
  explicit Stream(CUstream_st* borrowed) : handle_(borrowed), borrowed_(true) {}
  ~Stream();
  Stream(Stream&& other) noexcept
      : handle_(std::exchange(other.handle_, nullptr)), borrowed_(other.borrowed_) {}
  Stream& operator=(Stream&&) = delete;

  CUstream_st* handle() const { return handle_; }
  /// `from`, and `to` of the next, stay as they are until the copy has happened.
  void copy_to_device(void* to, const void* from, size_t bytes) const;
  void copy_to_host(void* to, const void* from, size_t bytes) const;
  void copy_on_device(void* to, const void* from, size_t bytes) const;
  void clear(void* to, size_t bytes) const;
  void synchronize() const;
  /// Waits until a kernel has stored `value` in pinned memory, with all that it wrote before; false
  /// if everything queued has happened and it is not there.
  bool wait_until(const uint32_t* word, uint32_t value) const;

  /// Where launch() writes kernels down instead of queueing them; null: nowhere.
  LaunchList* record() const { return record_; }
  void record_to(LaunchList* list) { record_ = list; }

  /// Whether kernels that are made for it start early.
  bool overlaps() const { return overlaps_; }
  void set_overlaps(bool overlaps) { overlaps_ = overlaps; }

 private:
  CUstream_st* handle_ = nullptr;
  bool borrowed_ = false;
  LaunchList* record_ = nullptr;
  bool overlaps_ = false;
};

/// By which a kernel of a loop says whether it goes on (device/loop.cuh).
using LoopHandle = unsigned long long;

/// Copies and kernels that are handed to the device as one.
class Graph {
 public:
  /// Of all that `body` queues on the stream: done, and done again while its last kernel wants it.
  /// Needs a driver of CUDA 12.4 or later. No copies from or to the host.
  static Graph loop(const Stream& stream, FunctionRef<void(LoopHandle)> body);
  /// Of all that `work` queues on the stream, none of which happens.
  Graph(const Stream& stream, FunctionRef<void()> work);
  ~Graph();
  Graph(Graph&& other) noexcept
      : handle_(std::exchange(other.handle_, nullptr)), num_nodes_(other.num_nodes_) {}
  Graph& operator=(Graph&&) = delete;

  void launch(const Stream& stream) const;
  size_t num_nodes() const { return num_nodes_; }  // of a loop, its body's

 private:
  Graph() = default;
  CUgraphExec_st* handle_ = nullptr;
  size_t num_nodes_ = 0;
};

/// A point in a stream.
class Event {
 public:
  Event();
  ~Event();
  Event(Event&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Event& operator=(Event&&) = delete;

  void record(const Stream& stream) const;
  void synchronize() const;
  /// Both recorded and reached.
  double milliseconds_since(const Event& earlier) const;

 private:
  CUevent_st* handle_ = nullptr;
};

// For launch().
void allow_shared_memory(const void* kernel, size_t bytes);
void check_launch(int error);

}  // namespace medusa::cuda
