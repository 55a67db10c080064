#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/thread_pool.h"

namespace medusa::benchmark {

// Reads every line, as far ahead as the kernels do.
inline uint64_t read_lines(const char* data, size_t bytes) {
  uint64_t a = 0, b = 0, c = 0, d = 0;
  for (size_t i = 0; i + 64 <= bytes; i += 64) {
    __builtin_prefetch(data + i + 2048);
    uint64_t words[8];
    std::memcpy(words, data + i, sizeof(words));
    a ^= words[0] ^ words[4];
    b ^= words[1] ^ words[5];
    c ^= words[2] ^ words[6];
    d ^= words[3] ^ words[7];
  }
  return a ^ b ^ c ^ d;
}

inline volatile uint64_t sink;

/// Reads memory on all threads, each its share.
inline void stream(ThreadPool& pool, const void* data, size_t bytes) {
  pool.parallel_for(static_cast<int64_t>(bytes), 1 << 16, [&](int64_t first, int64_t last, int) {
    sink = read_lines(static_cast<const char*>(data) + first, static_cast<size_t>(last - first));
  });
}

}  // namespace medusa::benchmark
