#pragma once

#include <deque>
#include <vector>

#include "emulator.h"

namespace medusa::emulation {

/// One thread's asynchronous copies of 16 bytes, in groups; each lands when it is waited for.
class CopyQueue {
 public:
  void add(void* to_shared, const void* from, Where where);
  void commit() { ++open_group_; }
  void wait(int groups_left);
  /// Makes what has landed visible to asynchronous products, as a fence of the proxies does.
  void show_to_products();
  void check_all_landed() const;

 private:
  struct Copy {
    void* to;
    const void* from;  // null: zeros
    Where where;
    int group;
  };
  std::deque<Copy> copies_;
  std::vector<void*> hidden_;  // landed since
  int open_group_ = 0;
};

}  // namespace medusa::emulation
