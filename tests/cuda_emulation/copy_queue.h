#pragma once

#include <deque>

#include "emulator.h"

namespace medusa::emulation {

/// One thread's asynchronous copies of 16 bytes, in groups; each lands when it is waited for.
class CopyQueue {
 public:
  void add(void* to_shared, const void* from, Where where);
  void commit() { ++open_group_; }
  void wait(int groups_left);
  void check_all_landed() const;

 private:
  struct Copy {
    void* to;
    const void* from;  // null: zeros
    Where where;
    int group;
  };
  std::deque<Copy> copies_;
  int open_group_ = 0;
};

}  // namespace medusa::emulation
