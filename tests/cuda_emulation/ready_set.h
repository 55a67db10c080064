#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace medusa::emulation {

inline constexpr int kMaxThreads = 1024;

/// Which threads of a block can run.
class ReadySet {
 public:
  void clear() { words_.fill(0); }
  void add(int thread) { words_[thread / 64] |= uint64_t{1} << thread % 64; }
  void remove(int thread) { words_[thread / 64] &= ~(uint64_t{1} << thread % 64); }
  // -1: none.
  int first() const {
    for (int w = 0; w < kWords; ++w) {
      if (words_[w] != 0) return w * 64 + std::countr_zero(words_[w]);
    }
    return -1;
  }
  int last() const {
    for (int w = kWords - 1; w >= 0; --w) {
      if (words_[w] != 0) return w * 64 + 63 - std::countl_zero(words_[w]);
    }
    return -1;
  }
  // The first one from `start` on, all round.
  int from(int start) const {
    for (int i = 0; i <= kWords; ++i) {
      const int w = (start / 64 + i) % kWords, bit = start % 64;
      const uint64_t upper = ~uint64_t{0} << bit;
      const uint64_t word = i == 0        ? words_[w] & upper
                            : i == kWords ? words_[w] & ~upper
                                          : words_[w];
      if (word != 0) return w * 64 + std::countr_zero(word);
    }
    return -1;
  }

 private:
  static constexpr int kWords = kMaxThreads / 64;
  std::array<uint64_t, kWords> words_{};
};

}  // namespace medusa::emulation
