#include "cluster.h"

#include <cstring>
#include <utility>

#include "shared_memory.h"

namespace medusa::emulation {

Cluster cluster;

std::string at(Where where) {
  return std::string(where.file_name()) + ":" + std::to_string(where.line());
}

bool same(Where a, Where b) {
  return a.line() == b.line() && std::strcmp(a.file_name(), b.file_name()) == 0;
}

void Cluster::run(std::span<const Index> blocks, int threads, const std::function<void()>& body,
                  bool early) {
  start(blocks, threads, body, early);
  current_ = next();
  Fiber::switch_to(host_, all_[current_]->fiber);
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  if (finished_ < threads_) fail_deadlock();
  check_ended();
}

void Cluster::check_ended() const {
  phases.check_all_landed();
  for (int t = 0; t < threads_; ++t) {
    if (!all_[t]->followed) fail("a thread that never waits for earlier kernels", all_[t]->where);
    all_[t]->copies.check_all_landed();
    const int first = t / of_block_ * of_block_ + t % of_block_ / kWarpgroup * kWarpgroup;
    all_[t]->products.check_all_done(all_[first]->products);
  }
}

void Cluster::start(std::span<const Index> blocks, int threads, const std::function<void()>& body,
                    bool early) {
  blocks_.clear();
  for (const Index index : blocks) blocks_.emplace_back().index = index;
  of_block_ = threads;
  threads_ = threads * size();
  while (static_cast<int>(all_.size()) < threads_) all_.push_back(std::make_unique<Thread>());
  body_ = &body;
  finished_ = arrived_ = 0;
  passed_ = 0;
  error_ = nullptr;
  lanes_.fill(0);
  ready_.clear(threads_);
  phases.clear();
  for (int t = 0; t < threads_; ++t) {
    Thread& thread = *all_[t];
    thread.state = State::ready;
    thread.followed = !early;
    thread.arrivals = thread.waits = 0;
    thread.copies = {};
    thread.products = {};
    thread.fiber.restart(entry);
    ready_.add(t);
  }
}

int Cluster::next() {
  switch (schedule_) {
    case Schedule::greedy:
      return ready_.first();
    case Schedule::reverse:
      return ready_.last();
    case Schedule::random:
      break;
  }
  return ready_.from(static_cast<int>(random_() % kMaxThreads) % threads_);
}

void Cluster::wait(Thread& me, State state, Where where) {
  me.state = state;
  me.where = where;
  ready_.remove(current_);
}

// In thread t, whose fiber runs.
void Cluster::go_on(int t) {
  current_ = t;
  thread_index = {static_cast<unsigned>(t % of_block_), 0, 0};
  block_index = blocks_[t / of_block_].index;
  use_shared_memory_of(t / of_block_);
}

// To the thread whose turn it is, or, with none left, to the host.
void Cluster::leave() {
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
  go_on(self);
}

void Cluster::finish() {
  Thread& me = *all_[current_];
  me.state = State::finished;
  ready_.remove(current_);
  ++finished_;
  ++blocks_[rank()].finished;
  const int to = error_ ? -1 : next();
  if (to >= 0) current_ = to;
  Fiber::finish(me.fiber, to >= 0 ? all_[to]->fiber : host_);
}

void Cluster::make_ready(int t) {
  all_[t]->state = State::ready;
  ready_.add(t);
}

void Cluster::wake(State state) {
  for (int t = 0; t < threads_; ++t) {
    if (all_[t]->state == state) make_ready(t);
  }
}

void Cluster::wake_waiting() { wake(State::at_phase); }

std::string Cluster::name(int t) const {
  std::string text = "thread " + std::to_string(t % of_block_);
  if (size() > 1) text += " of block " + std::to_string(t / of_block_);
  return text;
}

void Cluster::fail_deadlock() const {
  std::string text = "deadlock:";
  Where first;
  int told = 0;
  for (int t = 0; t < threads_ && told < 4; ++t) {
    const Thread& thread = *all_[t];
    if (thread.state == State::finished) continue;
    if (told++ == 0) first = thread.where;
    text += ' ' + name(t) + " waits at " + at(thread.where);
    if (thread.state == State::at_collective) text += " for lanes " + hex(thread.mask);
    if (thread.state == State::at_phase) text += " for a phase that does not end";
    if (thread.state == State::at_cluster) text += " for the cluster";
    text += ";";
  }
  fail(text + " " + std::to_string(finished_) + " have returned", first);
}

void Cluster::check_may_return(const Thread& me, const Block& mine) const {
  if (mine.waiting > 0) {
    fail("divergent barrier: " + name(current_) + " returns without it", mine.barrier);
  }
  if (me.arrivals != me.waits) fail("an arrival at the cluster's barrier without a wait", me.where);
  if (arrived_ > 0) {
    fail("divergent barrier of the cluster: " + name(current_) + " returns without it", arrival_);
  }
  const bool last = mine.finished + 1 == of_block_;
  if (last && mine.is_used && mine.waits <= mine.used.arrivals) {
    fail("block " + std::to_string(rank()) + " of the cluster may return before this",
         mine.used.where);
  }
}

void Cluster::entry() {
  const int self = cluster.current_;
  cluster.go_on(self);
  try {
    (*cluster.body_)();
    cluster.current_ = self;
    cluster.check_may_return(*cluster.all_[self], cluster.blocks_[cluster.rank()]);
  } catch (...) {
    cluster.current_ = self;
    cluster.error_ = std::current_exception();
  }
  cluster.finish();
}

}  // namespace medusa::emulation
