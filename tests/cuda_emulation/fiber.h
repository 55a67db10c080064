#pragma once

#include <cstddef>

namespace medusa::emulation {

/// A stack of its own, and the place in it to go on from.
class Fiber {
 public:
  /// A fiber for the thread that runs already.
  Fiber() = default;
  /// Maps a stack, with an inaccessible page below it.
  explicit Fiber(size_t stack_bytes);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// The next switch to it calls `entry`, which must never return. What ran on it before is gone.
  void restart(void (*entry)());
  /// Leaves `from`, the fiber that runs, and goes on in `to`.
  static void switch_to(Fiber& from, Fiber& to);
  /// As switch_to(), from a fiber that will not be switched to until restart().
  static void finish(Fiber& from, Fiber& to);

 private:
  static void go(Fiber& from, Fiber& to, bool for_good);
  static void enter();

  void* mapping_ = nullptr;
  size_t mapped_bytes_ = 0;
  const void* stack_ = nullptr;  // lowest usable address
  size_t stack_bytes_ = 0;
  void* stack_pointer_ = nullptr;
  void* fake_stack_ = nullptr;  // AddressSanitizer's
  void (*entry_)() = nullptr;
};

}  // namespace medusa::emulation
