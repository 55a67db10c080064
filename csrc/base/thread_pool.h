#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "base/function_ref.h"

namespace medusa {

/// Persistent threads that meet at spinning barriers. The caller is thread 0. Waiting threads spin
/// for some tens of microseconds, then sleep in the kernel. One caller at a time.
class ThreadPool {
 public:
  /// `num_threads` 0: available_processors().
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  /// Runs body(thread) once on every thread and returns when all are done. `body` must not throw
  /// and must not call run().
  void run(FunctionRef<void(int)> body);

  /// Splits 0 .. count - 1 into one consecutive range a thread, none shorter than `grain` unless
  /// there is but one, and runs body(begin, end, thread). The split depends on nothing else.
  template <class Body>
  void parallel_for(int64_t count, int64_t grain, const Body& body) {
    const int64_t parts = std::clamp<int64_t>(count / grain, 1, num_threads_);
    if (count <= 0) return;
    if (parts == 1) return body(int64_t{0}, count, 0);
    run([&](int thread) {
      if (thread < parts) body(count * thread / parts, count * (thread + 1) / parts, thread);
    });
  }

 private:
  void work(int thread);

  const int num_threads_;
  const FunctionRef<void(int)>* body_ = nullptr;
  bool stop_ = false;
  // Each on its own cache line: workers spin on the first, the caller on the second.
  alignas(64) std::atomic<uint32_t> region_{0};
  alignas(64) std::atomic<uint32_t> running_{0};
  std::vector<std::thread> threads_;
};

}  // namespace medusa
