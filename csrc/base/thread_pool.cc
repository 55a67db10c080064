#include "base/thread_pool.h"

#include "base/check.h"
#include "base/processors.h"

namespace medusa {
namespace {

constexpr int kSpins = 4000;

void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Returns the first value that differs from `old`.
uint32_t wait_while(const std::atomic<uint32_t>& value, uint32_t old) {
  for (int spin = 0; spin < kSpins; ++spin) {
    const uint32_t now = value.load(std::memory_order_acquire);
    if (now != old) return now;
    relax();
  }
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

int resolve(int num_threads) {
  check(num_threads >= 0 && num_threads <= 1024, "num_threads: expected 0 to 1024, found ",
        num_threads);
  return num_threads == 0 ? available_processors() : num_threads;
}

}  // namespace

ThreadPool::ThreadPool(int num_threads) : num_threads_(resolve(num_threads)) {
  threads_.reserve(static_cast<size_t>(num_threads_ - 1));
  for (int t = 1; t < num_threads_; ++t) threads_.emplace_back([this, t] { work(t); });
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  region_.fetch_add(1, std::memory_order_release);
  region_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::run(FunctionRef<void(int)> body) {
  if (num_threads_ == 1) return body(0);
  body_ = &body;
  running_.store(static_cast<uint32_t>(num_threads_ - 1), std::memory_order_relaxed);
  region_.fetch_add(1, std::memory_order_release);
  region_.notify_all();
  body(0);
  for (uint32_t left = running_.load(std::memory_order_acquire); left != 0;) {
    left = wait_while(running_, left);
  }
}

void ThreadPool::work(int thread) {
  for (uint32_t region = 0;;) {
    region = wait_while(region_, region);
    if (stop_) return;
    (*body_)(thread);
    if (running_.fetch_sub(1, std::memory_order_release) == 1) running_.notify_one();
  }
}

}  // namespace medusa
