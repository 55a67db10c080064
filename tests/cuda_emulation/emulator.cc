#include "emulator.h"

#include <array>
#include <bit>
#include <cstring>
#include <exception>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "copy_queue.h"
#include "fiber.h"
#include "ready_set.h"
#include "shared_memory.h"

namespace medusa::emulation {

Index thread_index, block_index, block_size, grid_size;

namespace {

constexpr int kWarp = 32;
constexpr size_t kStackBytes = 256 << 10;

std::string at(Where where) {
  return std::string(where.file_name()) + ":" + std::to_string(where.line());
}

bool same(Where a, Where b) {
  return a.line() == b.line() && std::strcmp(a.file_name(), b.file_name()) == 0;
}

std::string hex(unsigned mask) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}

enum class State : uint8_t { ready, at_barrier, at_collective, finished };

struct Thread {
  Thread() : fiber(kStackBytes) {}
  Fiber fiber;
  State state = State::ready;
  Where where;
  unsigned mask = 0;
  Collective collective = nullptr;
  void* operand = nullptr;
  CopyQueue copies;
};

// The block that runs.
class Block {
 public:
  void run(int threads, const std::function<void()>& body) {
    start(threads, body);
    current_ = next();
    Fiber::switch_to(host_, all_[current_]->fiber);
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    if (finished_ < threads_) fail_deadlock();
    for (int t = 0; t < threads_; ++t) all_[t]->copies.check_all_landed();
  }

  void meet_block(Where where) {
    Thread& me = *all_[current_];
    if (finished_ > 0) fail("a barrier that another thread has returned before", where);
    if (waiting_ > 0 && !same(barrier_, where)) {
      fail("divergent barrier: other threads are at " + at(barrier_), where);
    }
    barrier_ = where;
    wait(me, State::at_barrier, where);
    if (++waiting_ == threads_) release_barrier();
    leave();
  }

  void meet_warp(unsigned mask, Collective collective, void* operand, Where where) {
    const int lane = current_ % kWarp, first = current_ - lane;
    if ((mask >> lane & 1) == 0) {
      fail("lane " + std::to_string(lane) + " is not in its own mask " + hex(mask), where);
    }
    Thread& me = *all_[current_];
    me.mask = mask;
    me.collective = collective;
    me.operand = operand;
    unsigned& arrived = arrived_[current_ / kWarp];
    check_company(arrived, first, me, where);
    arrived |= 1u << lane;
    if ((arrived & mask) == mask) {
      carry_out(mask, first, arrived);
    } else {
      wait(me, State::at_collective, where);
      leave();
    }
  }

  Thread& thread() { return *all_[current_]; }
  void set_schedule(Schedule schedule, unsigned seed) {
    schedule_ = schedule;
    random_.seed(seed);
  }

 private:
  static void entry();

  void start(int threads, const std::function<void()>& body) {
    while (static_cast<int>(all_.size()) < threads) all_.push_back(std::make_unique<Thread>());
    threads_ = threads;
    body_ = &body;
    waiting_ = finished_ = 0;
    error_ = nullptr;
    arrived_.fill(0);
    ready_.clear();
    for (int t = 0; t < threads; ++t) {
      Thread& thread = *all_[t];
      thread.state = State::ready;
      thread.copies = {};
      thread.fiber.restart(entry);
      ready_.add(t);
    }
  }

  int next() {
    switch (schedule_) {
      case Schedule::greedy:
        return ready_.first();
      case Schedule::reverse:
        return ready_.last();
      case Schedule::random:
        break;
    }
    return ready_.from(static_cast<int>(random_() % kMaxThreads));
  }

  void wait(Thread& me, State state, Where where) {
    me.state = state;
    me.where = where;
    ready_.remove(current_);
  }

  // To the thread whose turn it is, or, with none left, to the host.
  void leave() {
    Thread& me = *all_[current_];
    const int to = next();
    if (to == current_) return;
    const int self = current_;
    if (to >= 0) {
      current_ = to;
      Fiber::switch_to(me.fiber, all_[to]->fiber);
    } else {
      Fiber::switch_to(me.fiber, host_);
    }
    current_ = self;
    thread_index = {static_cast<unsigned>(self), 0, 0};
  }

  void finish() {
    Thread& me = *all_[current_];
    me.state = State::finished;
    ready_.remove(current_);
    ++finished_;
    const int to = error_ ? -1 : next();
    if (to >= 0) current_ = to;
    Fiber::finish(me.fiber, to >= 0 ? all_[to]->fiber : host_);
  }

  void release_barrier() {
    waiting_ = 0;
    for (int t = 0; t < threads_; ++t) make_ready(t);
  }
  void make_ready(int t) {
    all_[t]->state = State::ready;
    ready_.add(t);
  }

  // Lanes that wait for lanes of this mask, or that this one waits for, must wait for the same.
  void check_company(unsigned arrived, int first, const Thread& me, Where where) const {
    for (unsigned left = arrived; left != 0; left &= left - 1) {
      const Thread& other = *all_[first + std::countr_zero(left)];
      if ((other.mask & me.mask) == 0) continue;
      if (other.mask != me.mask) {
        fail("lanes of mask " + hex(me.mask) + " meet lanes of mask " + hex(other.mask) + " from " +
                 at(other.where),
             where);
      }
      if (other.collective != me.collective || !same(other.where, where)) {
        fail("lanes of one mask meet at different collectives: others are at " + at(other.where),
             where);
      }
      return;
    }
  }

  void carry_out(unsigned mask, int first, unsigned& arrived) {
    void* operands[kWarp] = {};
    for (unsigned left = mask; left != 0; left &= left - 1) {
      const int lane = std::countr_zero(left);
      operands[lane] = all_[first + lane]->operand;
    }
    all_[current_]->collective(operands, mask);
    arrived &= ~mask;
    for (unsigned left = mask; left != 0; left &= left - 1) {
      make_ready(first + std::countr_zero(left));
    }
  }

  [[noreturn]] void fail_deadlock() const {
    std::string text = "deadlock:";
    Where first;
    int told = 0;
    for (int t = 0; t < threads_ && told < 4; ++t) {
      const Thread& thread = *all_[t];
      if (thread.state == State::finished) continue;
      if (told++ == 0) first = thread.where;
      text += " thread " + std::to_string(t) + " waits at " + at(thread.where);
      if (thread.state == State::at_collective) text += " for lanes " + hex(thread.mask);
      text += ";";
    }
    fail(text + " " + std::to_string(finished_) + " have returned", first);
  }

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

Block block;

void Block::entry() {
  thread_index = {static_cast<unsigned>(block.current_), 0, 0};
  const int self = block.current_;
  try {
    (*block.body_)();
  } catch (...) {
    block.error_ = std::current_exception();
  }
  block.current_ = self;
  if (!block.error_ && block.waiting_ > 0) {
    try {
      fail("divergent barrier: thread " + std::to_string(self) + " returns without it",
           block.barrier_);
    } catch (...) {
      block.error_ = std::current_exception();
    }
  }
  block.finish();
}

}  // namespace

void fail(const std::string& what, Where where) { throw Error(at(where) + ": " + what); }

void set_schedule(Schedule schedule, unsigned seed) { block.set_schedule(schedule, seed); }

void run_kernel(Index grid, int threads, size_t shared_bytes, const std::function<void()>& body) {
  if (threads <= 0 || threads % kWarp != 0 || threads > kMaxThreads) {
    throw Error("launch: expected whole warps, at most 1024 threads, found " +
                std::to_string(threads));
  }
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535) {
    throw Error("launch: expected a grid of 1 to 65535 blocks in y and z, found " +
                std::to_string(grid.x) + ", " + std::to_string(grid.y) + ", " +
                std::to_string(grid.z));
  }
  grid_size = grid;
  block_size = {static_cast<unsigned>(threads), 1, 1};
  begin_launch(shared_bytes);
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  for (uint64_t b = 0; b < blocks; ++b) {
    block_index = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                   static_cast<unsigned>(b / grid.x / grid.y)};
    begin_block();
    block.run(threads, body);
    end_block();
  }
}

void meet_block(Where where) { block.meet_block(where); }

void meet_warp(unsigned mask, Collective collective, void* operand, Where where) {
  block.meet_warp(mask, collective, operand, where);
}

void queue_copy(void* to_shared, const void* from, Where where) {
  block.thread().copies.add(to_shared, from, where);
}
void commit_copies() { block.thread().copies.commit(); }
void wait_for_copies(int groups_left) { block.thread().copies.wait(groups_left); }

}  // namespace medusa::emulation
