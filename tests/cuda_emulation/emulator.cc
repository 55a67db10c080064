#include "emulator.h"

#include <string>

#include "block.h"
#include "shared_memory.h"

namespace medusa::emulation {

Index thread_index, block_index, block_size, grid_size;

void fail(const std::string& what, Where where) {
  throw Error(std::string(where.file_name()) + ":" + std::to_string(where.line()) + ": " + what);
}

void set_schedule(Schedule schedule, unsigned seed) { block.set_schedule(schedule, seed); }

void run_kernel(Index grid, int threads, size_t shared_bytes, const std::function<void()>& body,
                bool early) {
  if (threads <= 0 || threads % 32 != 0 || threads > kMaxThreads) {
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
    block.run(threads, body, early);
    end_block();
  }
}

void meet_block(Where where) { block.meet_block(where); }

void meet_warp(unsigned mask, Collective collective, void* operand, Where where) {
  block.meet_warp(mask, collective, operand, where);
}

void follow() { block.thread().followed = true; }
void check_followed(Where where) {
  if (!block.thread().followed) fail("an access before the wait for earlier kernels", where);
}

void queue_copy(void* to_shared, const void* from, Where where) {
  block.thread().copies.add(to_shared, from, where);
}
void commit_copies() { block.thread().copies.commit(); }
void wait_for_copies(int groups_left) { block.thread().copies.wait(groups_left); }
void show_to_products() { block.thread().copies.show_to_products(); }

void init_phase(void* barrier, int arrivals, Where where) {
  block.phases.init(barrier, arrivals, where);
}
void arrive_at_phase(void* barrier, size_t bytes, Where where) {
  block.phases.arrive(barrier, bytes, where);
  block.wake_waiting();
}
void queue_bulk_copy(void* to_shared, const void* from, size_t bytes, void* barrier, Where where) {
  block.phases.add_copy(to_shared, from, bytes, barrier, where);
  block.wake_waiting();
}
void wait_for_phase(const void* barrier, unsigned parity, Where where) {
  block.wait_for_phase(barrier, parity, where);
}

void fence_product_operands() { block.thread().products.fence(); }
void queue_product(const AsyncProduct& product, Where where) {
  block.thread().products.add(product, where);
}
void commit_products() { block.thread().products.commit(); }
void wait_for_products(int groups_left, Where where) {
  WaitingProducts mine{&block.thread().products, groups_left, where};
  block.meet_warp(0xffffffffu, WaitingProducts::carry_out, &mine, where);
}

}  // namespace medusa::emulation
