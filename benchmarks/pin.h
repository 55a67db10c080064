#pragma once

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

namespace medusa::benchmark {

/// A thread that never rests, if wanted: what a busy machine looks like.
class BusyThread {
 public:
  explicit BusyThread(bool wanted) {
    if (!wanted) return;
    thread_ = std::thread([this] {
      while (!done_.load(std::memory_order_relaxed)) {
      }
    });
  }
  ~BusyThread() {
    done_ = true;
    if (thread_.joinable()) thread_.join();
  }
  BusyThread(const BusyThread&) = delete;
  BusyThread& operator=(const BusyThread&) = delete;

 private:
  std::atomic<bool> done_{false};
  std::thread thread_;
};

inline std::vector<int> allowed_processors() {
  static const std::vector<int> allowed = [] {
    cpu_set_t mask;
    CPU_ZERO(&mask);
    sched_getaffinity(0, sizeof(mask), &mask);
    std::vector<int> out;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &mask)) out.push_back(cpu);
    }
    return out;
  }();
  return allowed;
}

/// Ties each of the process's `count` oldest threads but the first to a processor of its own, or
/// sets them free. The first is the caller's, whose children would inherit what it is tied to.
inline void pin_threads(int count, bool pinned) {
  std::vector<int> threads;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
    threads.push_back(std::stoi(entry.path().filename()));
  }
  std::ranges::sort(threads);
  const std::vector<int> allowed = allowed_processors();
  for (int i = 1; i < std::min<int>(count, static_cast<int>(threads.size())); ++i) {
    cpu_set_t mask;
    CPU_ZERO(&mask);
    for (size_t at = 0; at < allowed.size(); ++at) {
      if (!pinned || at == static_cast<size_t>(i) % allowed.size()) CPU_SET(allowed[at], &mask);
    }
    sched_setaffinity(threads[static_cast<size_t>(i)], sizeof(mask), &mask);
  }
}

}  // namespace medusa::benchmark
