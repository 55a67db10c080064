// Blocks that share what they fetch and add up what each has: once right, then with one bug.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "backend/cuda/device/cluster.cuh"
#include "backend/cuda/device/shared.cuh"
#include "emulated_test.h"

namespace medusa::cuda {
namespace {

using emulation::Schedule;

enum class Bug {
  none,
  reaches_out_at_once,
  nobody_announces,
  too_few_bytes_announced,
  one_block_left_out,
  mask_of_other_blocks,
  misaligned_copy,
  overwritten_too_early,
  waits_for_its_own_block,
  no_barrier_before_reads,
  reads_too_far_a_rank,
  reads_outside_of_arrays,
  returns_before_it_is_read,
  arrives_and_never_waits,
  waits_and_never_arrives,
  arrives_twice,
  different_barriers,
  one_block_returns,
};

constexpr int kBlocks = 4, kThreads = 64, kPiece = 4, kRounds = 2;
constexpr uint32_t kPieceBytes = kPiece * sizeof(float);

struct Data {
  alignas(16) float pieces[kRounds][kBlocks][kPiece];

  Data() {
    float value = 0;
    for (auto& round : pieces) {
      for (auto& piece : round) {
        for (float& x : piece) x = ++value;
      }
    }
  }
  // What a thread of a block makes of the pieces of all, and that of all blocks.
  float of_block(int rank, int thread) const {
    float sum = 0;
    for (const auto& round : pieces) {
      for (const auto& piece : round) sum += piece[thread % kPiece];
    }
    return sum * static_cast<float>(rank + 1);
  }
  float expected(int thread) const {
    float sum = 0;
    for (int rank = 0; rank < kBlocks; ++rank) sum += of_block(rank, thread);
    return sum;
  }
};

struct Pieces {
  float* all;  // [block][kPiece]
  uint64_t* landed;
  uint64_t* freed;
};

// This block's piece to all, theirs to this one.
void ask_for_pieces(const Pieces& to, const Data& data, int round, Bug bug) {
  if (round > 0 && bug != Bug::overwritten_too_early) {
    bug == Bug::waits_for_its_own_block ? wait_barrier(to.freed, 0) : wait_for_peers(to.freed, 0);
  }
  uint32_t mask = (1u << kBlocks) - 1;
  if (bug == Bug::one_block_left_out) mask ^= 2;
  if (bug == Bug::mask_of_other_blocks) mask = 2 << kBlocks;
  uint32_t announced = kBlocks * kPieceBytes;
  if (bug == Bug::too_few_bytes_announced) announced -= kPieceBytes;
  if (bug != Bug::nobody_announces) arrive_expecting(to.landed, announced);
  const int off = bug == Bug::misaligned_copy ? 1 : 0;
  copy_bulk_to_peers(mask, to.all + cluster_rank() * kPiece + off,
                     data.pieces[round][cluster_rank()], kPieceBytes - off * 4, to.landed);
}

float sum_pieces(const Pieces& pieces, const Data& data, Bug bug) {
  float sum = 0;
  for (int round = 0; round < kRounds; ++round) {
    if (threadIdx.x == 0) ask_for_pieces(pieces, data, round, bug);
    wait_barrier(pieces.landed, round % 2);
    for (int i = 0; i < kBlocks; ++i) sum += pieces.all[i * kPiece + threadIdx.x % kPiece];
    sync_block();
    if (threadIdx.x < kBlocks) arrive_at_peer(pieces.freed, static_cast<int>(threadIdx.x));
  }
  return sum;
}

void meet(Bug bug) {
  if (bug == Bug::no_barrier_before_reads) return;
  if (bug == Bug::different_barriers && cluster_rank() == 2) return sync_cluster();
  if (bug == Bug::waits_and_never_arrives) return wait_for_cluster();
  if (bug == Bug::arrives_twice) arrive_at_cluster();
  sync_cluster();
}

void kernel(const Data& data, Bug bug, std::vector<float>& out) {
  MEDUSA_SHARED(float, all, kBlocks* kPiece);
  MEDUSA_SHARED(float, mine, kThreads);
  MEDUSA_SHARED(uint64_t, barriers, 2);
  if (threadIdx.x == 0) {
    init_barrier(barriers + 0, 1);
    init_barrier(barriers + 1, kBlocks);
    show_barriers_to_copies();
  }
  bug == Bug::reaches_out_at_once ? sync_block() : sync_cluster();
  const float sum = sum_pieces({all, barriers + 0, barriers + 1}, data, bug);
  if (bug == Bug::one_block_returns && cluster_rank() == 1) return;
  mine[threadIdx.x] = sum * static_cast<float>(cluster_rank() + 1);
  meet(bug);
  const float* at = mine + threadIdx.x;
  if (bug == Bug::reads_outside_of_arrays) at -= kThreads;
  float joined = 0;
  for (int i = 0; i < kBlocks; ++i) {
    joined += load_peer(at, bug == Bug::reads_too_far_a_rank ? i + 1 : i);
  }
  out[static_cast<size_t>(cluster_rank() * kThreads) + threadIdx.x] = joined;
  if (bug == Bug::returns_before_it_is_read) return;
  arrive_at_cluster();
  if (bug != Bug::arrives_and_never_waits) wait_for_cluster();
}

int wrong_sums(const Data& data, const std::vector<float>& out) {
  int wrong = 0;
  for (int i = 0; i < kBlocks * kThreads; ++i) {
    wrong += out[static_cast<size_t>(i)] != data.expected(i % kThreads);
  }
  return wrong;
}

struct Planted {
  Bug bug;
  const char* complaint;
};

class PlantedClusterBugTest : public emulation::EmulatedTest {
 protected:
  std::string run(Bug bug) {
    out.assign(out.size(), 0.0f);
    return emulation::complaint(kThreads, [&] { kernel(data, bug, out); }, 0, false, kBlocks);
  }
  const Data data;
  std::vector<float> out = std::vector<float>(kBlocks * kThreads);
};
MEDUSA_UNDER_EVERY_SCHEDULE(PlantedClusterBugTest);

TEST_P(PlantedClusterBugTest, without_one_sums_are_right) {
  EXPECT_EQ(run(Bug::none), "");
  EXPECT_EQ(wrong_sums(data, out), 0);
}

TEST_P(PlantedClusterBugTest, is_named) {
  constexpr Planted kNamed[] = {
      {Bug::reaches_out_at_once, "before a barrier of the cluster"},
      {Bug::nobody_announces, "a phase that does not end"},
      {Bug::too_few_bytes_announced, "more bytes land than were announced"},
      {Bug::one_block_left_out, "a phase that does not end"},
      {Bug::mask_of_other_blocks, "to blocks 0x00000020 of a cluster of 4"},
      {Bug::misaligned_copy, "not multiples of 16"},
      {Bug::overwritten_too_early, "more "},  // bytes, or arrivals
      {Bug::waits_for_its_own_block, "does not see other blocks' arrivals"},
      {Bug::reads_too_far_a_rank, "block 4 of a cluster of 4"},
      {Bug::reads_outside_of_arrays, "outside of shared memory"},
      {Bug::returns_before_it_is_read, "may return before this"},
      {Bug::arrives_and_never_waits, "an arrival at the cluster's barrier without a wait"},
      {Bug::waits_and_never_arrives, "without an arrival"},
      {Bug::arrives_twice, "a second arrival"},
      {Bug::different_barriers, "divergent barrier of the cluster"},
      {Bug::one_block_returns, "return"},
  };
  for (const Planted& planted : kNamed) {
    const std::string said = run(planted.bug);
    EXPECT_NE(said.find(planted.complaint), said.npos) << planted.complaint << ": " << said;
    EXPECT_NE(said.find("planted_cluster_bugs_test.cc:"), said.npos) << said;
  }
}

TEST_P(PlantedClusterBugTest, leaves_wrong_results) {
  EXPECT_EQ(run(Bug::no_barrier_before_reads), "");
  EXPECT_GT(wrong_sums(data, out), 0);
}

TEST(Clusters, are_of_whole_neighbours_in_the_grid) {
  std::vector<unsigned> ranks(6 * 4);
  const auto kernel = [&] {
    if (threadIdx.x == 0)
      ranks[blockIdx.y * 6 + blockIdx.x] = static_cast<unsigned>(cluster_rank());
    sync_cluster();
  };
  emulation::run_kernel({6, 4, 1}, 32, 0, kernel, false, {3, 2, 1});
  for (unsigned i = 0; i < 6 * 4; ++i) EXPECT_EQ(ranks[i], i / 6 % 2 * 3 + i % 6 % 3);
  EXPECT_THROW(emulation::run_kernel({6, 4, 1}, 32, 0, kernel, false, {4, 1, 1}), emulation::Error);
  EXPECT_THROW(emulation::run_kernel({9, 1, 1}, 32, 0, kernel, false, {9, 1, 1}), emulation::Error);
}

}  // namespace
}  // namespace medusa::cuda
