#pragma once

#include <array>
#include <exception>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "copy_queue.h"
#include "emulator.h"
#include "fiber.h"
#include "phases.h"
#include "product_queue.h"
#include "ready_set.h"

namespace medusa::emulation {

enum class State : uint8_t { ready, at_barrier, at_collective, at_phase, at_cluster, finished };

struct Thread {
  static constexpr size_t kStackBytes = 256 << 10;

  Thread() : fiber(kStackBytes) {}
  Fiber fiber;
  State state = State::ready;
  Where where;
  unsigned mask = 0;
  Collective collective = nullptr;
  void* operand = nullptr;
  bool followed = true;              // earlier kernels
  unsigned arrivals = 0, waits = 0;  // at the cluster's barrier
  CopyQueue copies;
  ProductQueue products;
};

/// A block of the cluster that runs.
struct Block {
  Index index{};
  int waiting = 0, finished = 0;  // threads
  Where barrier;
  unsigned waits = 0;  // barriers of the cluster that it has passed

  // The latest use of its memory by another block: after how many arrivals of that one.
  struct Use {
    unsigned arrivals = 0;
    Where where;
  };
  Use used;
  bool is_used = false;
};

/// The blocks that run together, most often one: their threads, what they wait for, and whose turn
/// it is. Threads are counted through all blocks.
class Cluster {
 public:
  void run(std::span<const Index> blocks, int threads, const std::function<void()>& body,
           bool early);
  void set_schedule(Schedule schedule, unsigned seed) {
    schedule_ = schedule;
    random_.seed(seed);
  }

  // Of the thread that runs.
  void meet_block(Where where);
  void meet_warp(unsigned mask, Collective collective, void* operand, Where where);
  void wait_for_phase(const void* barrier, unsigned parity, bool of_peers, Where where);
  void arrive(Where where);
  void wait_for_all(Where where);
  /// Throws Error unless the block of this rank may be asked for its memory now; then it may not
  /// return before a barrier of the cluster.
  void use_peer(int rank, Where where);
  /// Those that wait for a phase look again.
  void wake_waiting();
  Thread& thread() { return *all_[current_]; }
  int rank() const { return current_ / of_block_; }
  int size() const { return static_cast<int>(blocks_.size()); }
  Phases phases;

 private:
  static constexpr int kWarp = 32;

  static void entry();
  void start(std::span<const Index> blocks, int threads, const std::function<void()>& body,
             bool early);
  void check_ended() const;
  void check_may_return(const Thread& me, const Block& mine) const;
  void go_on(int t);
  int next();
  void wait(Thread& me, State state, Where where);
  void leave();
  void finish();
  void make_ready(int t);
  void wake(State state);
  void check_company(unsigned arrived, int first, const Thread& me, Where where) const;
  void carry_out(unsigned mask, int first, unsigned& arrived);
  std::string name(int t) const;
  [[noreturn]] void fail_deadlock() const;

  std::vector<std::unique_ptr<Thread>> all_;
  std::vector<Block> blocks_;
  Fiber host_;
  int threads_ = 0, of_block_ = 1, current_ = 0, finished_ = 0;
  const std::function<void()>* body_ = nullptr;
  int arrived_ = 0;  // at the cluster's barrier, which the others are still to reach
  unsigned passed_ = 0;
  Where arrival_;
  std::array<unsigned, kMaxClusterThreads / kWarp> lanes_{};  // [warp] at collectives
  ReadySet ready_;
  Schedule schedule_ = Schedule::greedy;
  std::mt19937 random_;
  std::exception_ptr error_;
};

extern Cluster cluster;

// For texts.
std::string at(Where where);
std::string hex(unsigned mask);
bool same(Where a, Where b);

}  // namespace medusa::emulation
