#include "emulator.h"

#include <memory>
#include <string>
#include <vector>

#include "cluster.h"
#include "shared_memory.h"

namespace medusa::emulation {

Index thread_index, block_index, block_size, grid_size;

void fail(const std::string& what, Where where) {
  throw Error(std::string(where.file_name()) + ":" + std::to_string(where.line()) + ": " + what);
}

void set_schedule(Schedule schedule, unsigned seed) { cluster.set_schedule(schedule, seed); }

namespace {

std::string text(Index i) {
  return std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z);
}

void check_launch(Index grid, int threads, Index of_cluster) {
  if (threads <= 0 || threads % 32 != 0 || threads > kMaxThreads) {
    throw Error("launch: expected whole warps, at most 1024 threads, found " +
                std::to_string(threads));
  }
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535) {
    throw Error("launch: expected a grid of 1 to 65535 blocks in y and z, found " + text(grid));
  }
  const uint64_t blocks = uint64_t{of_cluster.x} * of_cluster.y * of_cluster.z;
  if (blocks == 0 || blocks > kMaxBlocks) {
    throw Error("launch: expected clusters of 1 to 8 blocks, found " + text(of_cluster));
  }
  if (grid.x % of_cluster.x != 0 || grid.y % of_cluster.y != 0 || grid.z % of_cluster.z != 0) {
    throw Error("launch: expected a grid of whole clusters of " + text(of_cluster) +
                " blocks, found " + text(grid));
  }
}

// Of cluster c of a grid, by rank.
std::vector<Index> blocks_of(uint64_t c, Index grid, Index of_cluster) {
  const Index clusters{grid.x / of_cluster.x, grid.y / of_cluster.y, grid.z / of_cluster.z};
  const Index first{static_cast<unsigned>(c % clusters.x) * of_cluster.x,
                    static_cast<unsigned>(c / clusters.x % clusters.y) * of_cluster.y,
                    static_cast<unsigned>(c / clusters.x / clusters.y) * of_cluster.z};
  std::vector<Index> blocks;
  for (unsigned z = 0; z < of_cluster.z; ++z) {
    for (unsigned y = 0; y < of_cluster.y; ++y) {
      for (unsigned x = 0; x < of_cluster.x; ++x) {
        blocks.push_back({first.x + x, first.y + y, first.z + z});
      }
    }
  }
  return blocks;
}

}  // namespace

void run_kernel(Index grid, int threads, size_t shared_bytes, const std::function<void()>& body,
                bool early, Index of_cluster) {
  check_launch(grid, threads, of_cluster);
  grid_size = grid;
  block_size = {static_cast<unsigned>(threads), 1, 1};
  const uint64_t size = uint64_t{of_cluster.x} * of_cluster.y * of_cluster.z;
  begin_launch(shared_bytes, static_cast<int>(size));
  const uint64_t clusters = uint64_t{grid.x} * grid.y * grid.z / size;
  for (uint64_t c = 0; c < clusters; ++c) {
    begin_cluster();
    cluster.run(blocks_of(c, grid, of_cluster), threads, body, early);
    end_cluster();
  }
}

void meet_block(Where where) { cluster.meet_block(where); }

void meet_warp(unsigned mask, Collective collective, void* operand, Where where) {
  cluster.meet_warp(mask, collective, operand, where);
}

void follow() { cluster.thread().followed = true; }
void check_followed(Where where) {
  if (!cluster.thread().followed) fail("an access before the wait for earlier kernels", where);
}

void queue_copy(void* to_shared, const void* from, Where where) {
  cluster.thread().copies.add(to_shared, from, where);
}
void commit_copies() { cluster.thread().copies.commit(); }
void wait_for_copies(int groups_left) { cluster.thread().copies.wait(groups_left); }
void show_to_products() { cluster.thread().copies.show_to_products(); }

void init_phase(void* barrier, int arrivals, Where where) {
  cluster.phases.init(barrier, arrivals, where);
}
void arrive_at_phase(void* barrier, size_t bytes, Where where) {
  cluster.phases.arrive(barrier, bytes, false, where);
  cluster.wake_waiting();
}
void queue_bulk_copy(void* to_shared, const void* from, size_t bytes, void* barrier, Where where) {
  check_shared(to_shared, bytes, "a bulk copy", where);
  cluster.phases.add_copy(to_shared, std::make_shared<Fetch>(from, bytes), bytes, barrier, where);
  cluster.wake_waiting();
}
void wait_for_phase(const void* barrier, unsigned parity, bool of_peers, Where where) {
  cluster.wait_for_phase(barrier, parity, of_peers, where);
}

int cluster_rank() { return cluster.rank(); }
int cluster_size() { return cluster.size(); }
void arrive_at_cluster(Where where) { cluster.arrive(where); }
void wait_for_cluster(Where where) { cluster.wait_for_all(where); }
void* peer_memory(const void* at, size_t bytes, int rank, Where where) {
  cluster.use_peer(rank, where);
  return at_peer(at, bytes, rank, "an access to another block", where);
}
void arrive_at_peers_phase(void* barrier, int rank, Where where) {
  void* of_peer = peer_memory(barrier, sizeof(uint64_t), rank, where);
  cluster.phases.arrive(of_peer, 0, rank != cluster.rank(), where);
  cluster.wake_waiting();
}
void queue_bulk_copy_to(unsigned mask, void* to_shared, const void* from, size_t bytes,
                        void* barrier, Where where) {
  if (mask == 0 || mask >> cluster.size() != 0) {
    fail(
        "a bulk copy to blocks " + hex(mask) + " of a cluster of " + std::to_string(cluster.size()),
        where);
  }
  const auto what = std::make_shared<Fetch>(from, bytes);
  for (int rank = 0; rank < cluster.size(); ++rank) {
    if ((mask >> rank & 1) == 0) continue;
    cluster.phases.add_copy(peer_memory(to_shared, bytes, rank, where), what, bytes,
                            peer_memory(barrier, sizeof(uint64_t), rank, where), where);
  }
  cluster.wake_waiting();
}

void fence_product_operands() { cluster.thread().products.fence(); }
void queue_product(const AsyncProduct& product, Where where) {
  cluster.thread().products.add(product, where);
}
void commit_products() { cluster.thread().products.commit(); }
void wait_for_products(int groups_left, Where where) {
  WaitingProducts mine{&cluster.thread().products, groups_left, where};
  cluster.meet_warp(0xffffffffu, WaitingProducts::carry_out, &mine, where);
}

}  // namespace medusa::emulation
