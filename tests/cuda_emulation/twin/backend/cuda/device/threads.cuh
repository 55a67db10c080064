#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "emulator.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

#define threadIdx (::medusa::emulation::thread_index)
#define blockIdx (::medusa::emulation::block_index)
#define blockDim (::medusa::emulation::block_size)
#define gridDim (::medusa::emulation::grid_size)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned the_x = 1, unsigned the_y = 1, unsigned the_z = 1)
      : x(the_x), y(the_y), z(the_z) {}
};

namespace medusa::cuda {

using emulation::Where;

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

inline int lane() { return static_cast<int>(threadIdx.x) % kWarp; }
inline int warp() { return static_cast<int>(threadIdx.x) / kWarp; }

inline void sync_block(Where where = Where::current()) { emulation::meet_block(where); }
inline void sync_warp(unsigned mask = kAllLanes, Where where = Where::current()) {
  emulation::meet_warp(mask, [](void* const(&)[32], unsigned) {}, nullptr, where);
}

namespace twin {

template <class T>
struct Exchange {
  T value;
  int source;
  T result;
  Where where;
};

template <class T>
void exchange(void* const (&operands)[32], unsigned mask) {
  for (int i = 0; i < kWarp; ++i) {
    if (operands[i] == nullptr) continue;
    auto& mine = *static_cast<Exchange<T>*>(operands[i]);
    if (mine.source < 0 || mine.source >= kWarp || (mask >> mine.source & 1) == 0) {
      emulation::fail(
          "a shuffle reads lane " + std::to_string(mine.source) + ", which is outside of its mask",
          mine.where);
    }
    mine.result = static_cast<Exchange<T>*>(operands[mine.source])->value;
  }
}

struct Vote {
  bool vote;
  unsigned result;
};
inline void collect(void* const (&operands)[32], unsigned) {
  unsigned votes = 0;
  for (int i = 0; i < kWarp; ++i) {
    if (operands[i] != nullptr && static_cast<Vote*>(operands[i])->vote) votes |= 1u << i;
  }
  for (void* operand : operands) {
    if (operand != nullptr) static_cast<Vote*>(operand)->result = votes;
  }
}

}  // namespace twin

template <class T>
T shuffle(T value, int source, unsigned mask = kAllLanes, Where where = Where::current()) {
  twin::Exchange<T> mine{value, source, {}, where};
  emulation::meet_warp(mask, twin::exchange<T>, &mine, where);
  return mine.result;
}
template <class T>
T shuffle_xor(T value, int bits, unsigned mask = kAllLanes, Where where = Where::current()) {
  return shuffle(value, lane() ^ bits, mask, where);
}
inline unsigned ballot(bool vote, unsigned mask = kAllLanes, Where where = Where::current()) {
  twin::Vote mine{vote, 0};
  emulation::meet_warp(mask, twin::collect, &mine, where);
  return mine.result;
}

inline int atomic_add(int* at, int value, Where where = Where::current()) {
  emulation::check_followed(where);
  const int before = *at;
  *at += value;
  return before;
}
inline int atomic_max(int* at, int value) {
  const int before = *at;
  *at = before > value ? before : value;
  return before;
}
inline void fence() {}

}  // namespace medusa::cuda
