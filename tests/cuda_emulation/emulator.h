#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>
#include <stdexcept>

// CUDA's execution model on one thread of the host: a fiber per CUDA thread, clusters of blocks in
// sequence.
namespace medusa::emulation {

using Where = std::source_location;

/// What a kernel does that CUDA does not define, or that is wrong on some GPU. Names file and line.
struct Error : std::logic_error {
  using std::logic_error::logic_error;
};
[[noreturn]] void fail(const std::string& what, Where where);

/// Which of the threads that can run goes on. The first two let one warp run as far ahead of the
/// others as barriers allow, which is what makes a missing one visible.
enum class Schedule : uint8_t { greedy, reverse, random };
void set_schedule(Schedule schedule, unsigned seed = 0);

struct Index {
  unsigned x, y, z;
};

/// Runs `body` as every thread of every block. Throws Error; the kernel is then abandoned. `early`:
/// every thread must follow() before it reads or writes what other kernels may write. `cluster`:
/// neighbours in the grid that run together.
void run_kernel(Index grid, int threads, size_t shared_bytes, const std::function<void()>& body,
                bool early = false, Index cluster = {1, 1, 1});

// What the vocabulary's twins are made of; called by a running thread.

void meet_block(Where where);

/// Carries out one operation of the lanes in `mask` once all have come: `operands` by lane, null
/// for those outside the mask. Runs on the last lane, the others wait.
using Collective = void (*)(void* const (&operands)[32], unsigned mask);
void meet_warp(unsigned mask, Collective collective, void* operand, Where where);

void follow();
void check_followed(Where where);

void queue_copy(void* to_shared, const void* from, Where where);
void commit_copies();
void wait_for_copies(int groups_left);
/// What has landed may be read by asynchronous products.
void show_to_products();

// Barriers that count arrivals and bytes. Bulk copies land when somebody waits for their phase.
void init_phase(void* barrier, int arrivals, Where where);
/// Of one thread, which announces the bytes of copies.
void arrive_at_phase(void* barrier, size_t bytes, Where where);
void queue_bulk_copy(void* to_shared, const void* from, size_t bytes, void* barrier, Where where);
/// `of_peers`: the wait sees what other blocks have done.
void wait_for_phase(const void* barrier, unsigned parity, bool of_peers, Where where);

// Blocks of a cluster. Each has the same arrays; a place in one's own names it in all.
int cluster_rank();
int cluster_size();
void arrive_at_cluster(Where where);
void wait_for_cluster(Where where);
/// The place in the block of this rank, to be read or written now.
void* peer_memory(const void* at, size_t bytes, int rank, Where where);
void arrive_at_peers_phase(void* barrier, int rank, Where where);
/// To every block of the mask, each of whose barriers must have been told of the bytes.
void queue_bulk_copy_to(unsigned mask, void* to_shared, const void* from, size_t bytes,
                        void* barrier, Where where);

/// A lane's share of a product of four warps; `carry_out` has the records of a warp's lanes.
struct AsyncProduct {
  float* sums;
  const uint32_t* left;  // four registers
  uint64_t right;        // descriptor of an operand in shared memory
  Collective carry_out;
  Where where;
};
// Carried out at the wait: what has changed until then has changed too early.
void fence_product_operands();
void queue_product(const AsyncProduct& product, Where where);
void commit_products();
void wait_for_products(int groups_left, Where where);

/// Indices of the running thread, its block and the launch.
extern Index thread_index, block_index, block_size, grid_size;

}  // namespace medusa::emulation
