#pragma once

#include <array>
#include <exception>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "copy_queue.h"
#include "emulator.h"
#include "fiber.h"
#include "phases.h"
#include "product_queue.h"
#include "ready_set.h"

namespace medusa::emulation {

enum class State : uint8_t { ready, at_barrier, at_collective, at_phase, finished };

struct Thread {
  static constexpr size_t kStackBytes = 256 << 10;

  Thread() : fiber(kStackBytes) {}
  Fiber fiber;
  State state = State::ready;
  Where where;
  unsigned mask = 0;
  Collective collective = nullptr;
  void* operand = nullptr;
  bool followed = true;  // earlier kernels
  CopyQueue copies;
  ProductQueue products;
};

/// The block that runs: its threads, what they wait for, and whose turn it is.
class Block {
 public:
  void run(int threads, const std::function<void()>& body, bool early);
  void set_schedule(Schedule schedule, unsigned seed) {
    schedule_ = schedule;
    random_.seed(seed);
  }

  // Of the thread that runs.
  void meet_block(Where where);
  void meet_warp(unsigned mask, Collective collective, void* operand, Where where);
  void wait_for_phase(const void* barrier, unsigned parity, Where where);
  /// Those that wait for a phase look again.
  void wake_waiting();
  Thread& thread() { return *all_[current_]; }
  Phases phases;

 private:
  static constexpr int kWarp = 32;

  static void entry();
  void start(int threads, const std::function<void()>& body, bool early);
  void check_ended() const;
  int next();
  void wait(Thread& me, State state, Where where);
  void leave();
  void finish();
  void release_barrier();
  void make_ready(int t);
  void check_company(unsigned arrived, int first, const Thread& me, Where where) const;
  void carry_out(unsigned mask, int first, unsigned& arrived);
  [[noreturn]] void fail_deadlock() const;

  std::vector<std::unique_ptr<Thread>> all_;
  Fiber host_;
  int threads_ = 0, current_ = 0, waiting_ = 0, finished_ = 0;
  const std::function<void()>* body_ = nullptr;
  Where barrier_;
  std::array<unsigned, kMaxThreads / kWarp> arrived_{};  // [warp] lanes at collectives
  ReadySet ready_;
  Schedule schedule_ = Schedule::greedy;
  std::mt19937 random_;
  std::exception_ptr error_;
};

extern Block block;

}  // namespace medusa::emulation
