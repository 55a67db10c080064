// Where threads meet: barriers, collectives of a warp, phases, and other blocks of the cluster.
#include <algorithm>
#include <bit>
#include <cstdio>
#include <string>

#include "cluster.h"

namespace medusa::emulation {

std::string hex(unsigned mask) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}

void Cluster::meet_block(Where where) {
  Block& mine = blocks_[rank()];
  if (mine.finished > 0) fail("a barrier that another thread has returned before", where);
  if (mine.waiting > 0 && !same(mine.barrier, where)) {
    fail("divergent barrier: other threads are at " + at(mine.barrier), where);
  }
  mine.barrier = where;
  wait(thread(), State::at_barrier, where);
  if (++mine.waiting == of_block_) {
    mine.waiting = 0;
    const int first = rank() * of_block_;
    for (int t = first; t < first + of_block_; ++t) make_ready(t);
  }
  leave();
}

void Cluster::meet_warp(unsigned mask, Collective collective, void* operand, Where where) {
  const int lane = current_ % kWarp, first = current_ - lane;
  if ((mask >> lane & 1) == 0) {
    fail("lane " + std::to_string(lane) + " is not in its own mask " + hex(mask), where);
  }
  Thread& me = thread();
  me.mask = mask;
  me.collective = collective;
  me.operand = operand;
  unsigned& arrived = lanes_[current_ / kWarp];
  check_company(arrived, first, me, where);
  arrived |= 1u << lane;
  if ((arrived & mask) == mask) {
    carry_out(mask, first, arrived);
  } else {
    wait(me, State::at_collective, where);
    leave();
  }
}

// Lanes that wait for lanes of this mask, or that this one waits for, must wait for the same.
void Cluster::check_company(unsigned arrived, int first, const Thread& me, Where where) const {
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

void Cluster::carry_out(unsigned mask, int first, unsigned& arrived) {
  void* operands[kWarp] = {};
  for (unsigned left = mask; left != 0; left &= left - 1) {
    const int lane = std::countr_zero(left);
    operands[lane] = all_[first + lane]->operand;
  }
  thread().collective(operands, mask);
  arrived &= ~mask;
  for (unsigned left = mask; left != 0; left &= left - 1) {
    make_ready(first + std::countr_zero(left));
  }
}

void Cluster::wait_for_phase(const void* barrier, unsigned parity, bool of_peers, Where where) {
  while (!phases.passed(barrier, parity, of_peers, where)) {
    wait(thread(), State::at_phase, where);
    leave();
  }
  wake_waiting();
}

void Cluster::arrive(Where where) {
  Thread& me = thread();
  if (me.arrivals != me.waits) {
    fail("a second arrival at the cluster's barrier without a wait", where);
  }
  if (finished_ > 0)
    fail("a barrier of the cluster that another thread has returned before", where);
  if (arrived_ > 0 && !same(arrival_, where)) {
    fail("divergent barrier of the cluster: other threads are at " + at(arrival_), where);
  }
  arrival_ = me.where = where;
  ++me.arrivals;
  if (++arrived_ < threads_) return;
  arrived_ = 0;
  ++passed_;
  wake(State::at_cluster);
}

void Cluster::wait_for_all(Where where) {
  Thread& me = thread();
  if (me.arrivals == me.waits) {
    fail("a wait for the cluster's barrier without an arrival", where);
  }
  if (passed_ < me.arrivals) {
    wait(me, State::at_cluster, where);
    leave();
  }
  Block& mine = blocks_[rank()];
  mine.waits = std::max(mine.waits, ++me.waits);
}

// Blocks are known to run once all have met, and to run still until they meet again.
void Cluster::use_peer(int rank, Where where) {
  if (rank < 0 || rank >= size()) {
    fail("block " + std::to_string(rank) + " of a cluster of " + std::to_string(size()), where);
  }
  if (rank == this->rank()) return;
  if (blocks_[this->rank()].waits == 0) {
    fail("another block's memory before a barrier of the cluster", where);
  }
  Block& peer = blocks_[rank];
  if (peer.finished == of_block_) {
    fail("memory of block " + std::to_string(rank) + " of the cluster, which has returned", where);
  }
  if (!peer.is_used || thread().arrivals >= peer.used.arrivals) {
    peer.used = {thread().arrivals, where};
  }
  peer.is_used = true;
}

}  // namespace medusa::emulation
