#include "block.h"

#include <bit>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>

namespace medusa::emulation {

Block block;

namespace {

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

}  // namespace

void Block::run(int threads, const std::function<void()>& body, bool early) {
  start(threads, body, early);
  current_ = next();
  Fiber::switch_to(host_, all_[current_]->fiber);
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  if (finished_ < threads_) fail_deadlock();
  check_ended();
}

void Block::check_ended() const {
  phases.check_all_landed();
  for (int t = 0; t < threads_; ++t) {
    if (!all_[t]->followed) fail("a thread that never waits for earlier kernels", all_[t]->where);
    all_[t]->copies.check_all_landed();
    all_[t]->products.check_all_done(all_[t / kWarpgroup * kWarpgroup]->products);
  }
}

void Block::meet_block(Where where) {
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

void Block::meet_warp(unsigned mask, Collective collective, void* operand, Where where) {
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

void Block::wait_for_phase(const void* barrier, unsigned parity, Where where) {
  while (!phases.passed(barrier, parity, where)) {
    wait(*all_[current_], State::at_phase, where);
    leave();
  }
  wake_waiting();
}

void Block::wake_waiting() {
  for (int t = 0; t < threads_; ++t) {
    if (all_[t]->state == State::at_phase) make_ready(t);
  }
}

void Block::start(int threads, const std::function<void()>& body, bool early) {
  while (static_cast<int>(all_.size()) < threads) all_.push_back(std::make_unique<Thread>());
  threads_ = threads;
  body_ = &body;
  waiting_ = finished_ = 0;
  error_ = nullptr;
  arrived_.fill(0);
  ready_.clear();
  phases.clear();
  for (int t = 0; t < threads; ++t) {
    Thread& thread = *all_[t];
    thread.state = State::ready;
    thread.followed = !early;
    thread.copies = {};
    thread.products = {};
    thread.fiber.restart(entry);
    ready_.add(t);
  }
}

int Block::next() {
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

void Block::wait(Thread& me, State state, Where where) {
  me.state = state;
  me.where = where;
  ready_.remove(current_);
}

// To the thread whose turn it is, or, with none left, to the host.
void Block::leave() {
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

void Block::finish() {
  Thread& me = *all_[current_];
  me.state = State::finished;
  ready_.remove(current_);
  ++finished_;
  const int to = error_ ? -1 : next();
  if (to >= 0) current_ = to;
  Fiber::finish(me.fiber, to >= 0 ? all_[to]->fiber : host_);
}

void Block::release_barrier() {
  waiting_ = 0;
  for (int t = 0; t < threads_; ++t) make_ready(t);
}

void Block::make_ready(int t) {
  all_[t]->state = State::ready;
  ready_.add(t);
}

// Lanes that wait for lanes of this mask, or that this one waits for, must wait for the same.
void Block::check_company(unsigned arrived, int first, const Thread& me, Where where) const {
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

void Block::carry_out(unsigned mask, int first, unsigned& arrived) {
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

void Block::fail_deadlock() const {
  std::string text = "deadlock:";
  Where first;
  int told = 0;
  for (int t = 0; t < threads_ && told < 4; ++t) {
    const Thread& thread = *all_[t];
    if (thread.state == State::finished) continue;
    if (told++ == 0) first = thread.where;
    text += " thread " + std::to_string(t) + " waits at " + at(thread.where);
    if (thread.state == State::at_collective) text += " for lanes " + hex(thread.mask);
    if (thread.state == State::at_phase) text += " for a phase that does not end";
    text += ";";
  }
  fail(text + " " + std::to_string(finished_) + " have returned", first);
}

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

}  // namespace medusa::emulation
