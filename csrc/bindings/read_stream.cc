#include <pybind11/stl.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <span>
#include <vector>

#include "base/check.h"
#include "base/pages.h"
#include "base/thread_pool.h"
#include "bindings/bindings.h"

namespace py = pybind11;
using namespace py::literals;

namespace medusa {
namespace {

constexpr size_t kAhead = 1024;  // bytes, as the kernels prefetch

uint64_t sum_words(std::span<const uint64_t> words) {
  uint64_t sums[16] = {};
  for (size_t i = 0; i + 16 <= words.size(); i += 16) {
    __builtin_prefetch(reinterpret_cast<const char*>(&words[i]) + kAhead);
    __builtin_prefetch(reinterpret_cast<const char*>(&words[i]) + kAhead + 64);
    for (size_t j = 0; j < 16; ++j) sums[j] += words[i + j];
  }
  uint64_t total = 0;
  for (const uint64_t sum : sums) total += sum;
  return total;
}

/// Seconds of each of `repeats` passes that read `num_bytes` once, split over the threads.
std::vector<double> read_stream(size_t num_bytes, int num_threads, int repeats) {
  check(num_bytes >= 128 && repeats >= 1, "read_stream: expected 128 bytes and 1 repeat or more");
  ThreadPool pool(num_threads);
  auto* data = static_cast<uint64_t*>(map_pages(num_bytes));
  std::memset(data, 1, num_bytes);
  std::atomic<uint64_t> sink = 0;
  std::vector<double> seconds;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    pool.parallel_for(static_cast<int64_t>(num_bytes / 128), 1,
                      [&](int64_t begin, int64_t end, int) {
                        sink += sum_words({data + begin * 16, data + end * 16});
                      });
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    seconds.push_back(passed.count());
  }
  unmap_pages(data, num_bytes);
  return seconds;
}

}  // namespace

void register_read_stream(py::module_& module) {
  module.def("read_stream", &read_stream, py::call_guard<py::gil_scoped_release>(), "num_bytes"_a,
             "num_threads"_a = 0, "repeats"_a = 9,
             "Seconds of each pass that reads so many bytes once: what memory allows a step.");
}

}  // namespace medusa
