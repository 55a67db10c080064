#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace medusa::emulation {

inline constexpr int kMaxThreads = 1024, kMaxBlocks = 8;  // of a block, of a cluster
inline constexpr int kMaxClusterThreads = kMaxThreads * kMaxBlocks;

/// Which threads of a cluster can run.
class ReadySet {
 public:
  /// Of so many none.
  void clear(int threads) {
    words_.fill(0);
    used_ = (threads + 63) / 64;
  }
  void add(int thread) { words_[thread / 64] |= uint64_t{1} << thread % 64; }
  void remove(int thread) { words_[thread / 64] &= ~(uint64_t{1} << thread % 64); }
  // -1: none.
  int first() const {
    for (int w = 0; w < used_; ++w) {
      if (words_[w] != 0) return w * 64 + std::countr_zero(words_[w]);
    }
    return -1;
  }
  int last() const {
    for (int w = used_ - 1; w >= 0; --w) {
      if (words_[w] != 0) return w * 64 + 63 - std::countl_zero(words_[w]);
    }
    return -1;
  }
  // The first one from `start` on, all round.
  int from(int start) const {
    for (int i = 0; i <= used_; ++i) {
      const int w = (start / 64 + i) % used_, bit = start % 64;
      const uint64_t upper = ~uint64_t{0} << bit;
      const uint64_t word = i == 0       ? words_[w] & upper
                            : i == used_ ? words_[w] & ~upper
                                         : words_[w];
      if (word != 0) return w * 64 + std::countr_zero(word);
    }
    return -1;
  }

 private:
  std::array<uint64_t, kMaxClusterThreads / 64> words_{};
  int used_ = 0;  // of them
};

}  // namespace medusa::emulation
