#pragma once

#include <deque>

#include "emulator.h"

namespace medusa::emulation {

inline constexpr int kWarpgroup = 128;  // threads

/// One thread's asynchronous products, in groups; each is carried out when it is waited for.
class ProductQueue {
 public:
  void fence() { fenced_ = true; }
  void add(const AsyncProduct& product, Where where);
  void commit() { ++open_group_; }
  /// Throws Error if some are left, or if they were not those of the group's first thread.
  void check_all_done(const ProductQueue& first) const;

 private:
  friend struct WaitingProducts;

  struct Item {
    AsyncProduct product;
    int group;
  };
  std::deque<Item> items_;
  int open_group_ = 0;
  bool fenced_ = false;
  uint64_t history_ = 0;  // of right operands
  Where last_;
};

/// A lane that waits; all lanes of its warp do.
struct WaitingProducts {
  static void carry_out(void* const (&operands)[32], unsigned mask);

  ProductQueue* queue;
  int groups_left;
  Where where;

 private:
  bool ready() const;
};

}  // namespace medusa::emulation
