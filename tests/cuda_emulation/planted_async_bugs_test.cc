// Products of four warps, over weights that came by bulk copies: once right, then with one bug.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "backend/cuda/device/async_copy.cuh"
#include "backend/cuda/device/barrier.cuh"
#include "backend/cuda/device/dependency.cuh"
#include "backend/cuda/device/shared.cuh"
#include "backend/cuda/device/warpgroup.cuh"
#include "emulated_test.h"

namespace medusa::cuda {
namespace {

using emulation::Schedule;

enum class Bug {
  none,
  no_wait_for_copies,
  wrong_parity,
  no_initialisation,
  too_many_bytes_announced,
  too_few_bytes_announced,
  overwritten_too_early,
  wrong_swizzle,
  not_swizzled_at_all,
  unaligned_tile,
  not_shown_to_products,
  no_fence,
  no_wait_for_products,
  left_changed_too_early,
  different_operands,
  misaligned_copy,
  reads_before_the_wait,
};

constexpr int kRows = 64, kColumns = 8, kDepth = 16;
constexpr uint32_t kLeftBytes = 16 * kDepth * sizeof(bf16);  // of a warp

struct Data {
  // [warp][lane][8], each warp's 16 rows as operand A; [column][64] of which 16 are multiplied.
  alignas(16) bf16 left[kRows * kDepth];
  alignas(16) bf16 right[kColumns * 64];
  float expected[kRows][kColumns];

  Data() {
    const auto value = [](int i) { return from_float<bf16>(static_cast<float>(i * 37 % 17 - 8)); };
    bf16 rows[kRows][kDepth];
    for (int r = 0; r < kRows; ++r) {
      for (int k = 0; k < kDepth; ++k) {
        const int l = r % 8 * 4 + k % 8 / 2, element = r % 16 / 8 * 2 + k / 8 * 4 + k % 2;
        left[r / 16 * 256 + l * 8 + element] = rows[r][k] = value(r * kDepth + k);
      }
    }
    for (int i = 0; i < kColumns * 64; ++i) right[i] = value(i + 5);
    for (int r = 0; r < kRows; ++r) {
      for (int c = 0; c < kColumns; ++c) {
        expected[r][c] = 0;
        for (int k = 0; k < kDepth; ++k) {
          expected[r][c] += to_float(rows[r][k]) * to_float(right[c * 64 + k]);
        }
      }
    }
  }
};

void bring_right(unsigned char* to, const Data& data, Bug bug) {
  if (threadIdx.x < kColumns * 8) {
    const int row = threadIdx.x / 8, piece = threadIdx.x % 8;
    int at = swizzled(row, piece);
    if (bug == Bug::wrong_swizzle) at = swizzled(row, piece ^ 1);
    if (bug == Bug::not_swizzled_at_all) at = row * 128 + piece * 16;
    copy_async_16(to + at, data.right + row * 64 + piece * 8, true);
  }
  copy_async_commit();
  copy_async_wait<0>();
  if (bug != Bug::not_shown_to_products) show_to_products();
}

void ask_for_left(unsigned char* to, const Data& data, uint64_t* landed, Bug bug) {
  if (bug != Bug::no_initialisation) init_barrier(landed, 1);
  show_barriers_to_copies();
  uint32_t announced = kLeftBytes;
  if (bug == Bug::too_many_bytes_announced) announced += 16;
  if (bug == Bug::too_few_bytes_announced) announced -= 16;
  arrive_expecting(landed, announced);
  const auto* from = reinterpret_cast<const char*>(data.left) + warp() * kLeftBytes;
  copy_bulk_once(to + (bug == Bug::misaligned_copy ? 8 : 0), from, kLeftBytes, landed);
}

void read_left(uint32_t (&left)[4], const unsigned char* from, uint64_t* landed, Bug bug) {
  if (bug != Bug::no_wait_for_copies) {
    wait_barrier(landed, bug == Bug::wrong_parity ? 1 : 0);
  }
  std::memcpy(left, from + lane() * 16, 16);
}

void kernel(const Data& data, Bug bug, std::vector<float>& out) {
  MEDUSA_SWIZZLED_SHARED(unsigned char, memory);
  MEDUSA_SHARED(uint64_t, landed, 4);
  unsigned char* right = memory + (bug == Bug::unaligned_tile ? 512 : 0);
  unsigned char* mine = memory + (2048 + warp() * kLeftBytes);
  if (lane() == 0) ask_for_left(mine, data, landed + warp(), bug);
  if (bug != Bug::reads_before_the_wait) wait_for_earlier_kernels();
  bring_right(right, data, bug);
  if (bug == Bug::reads_before_the_wait) wait_for_earlier_kernels();
  sync_block();
  uint32_t left[4];
  read_left(left, mine, landed + warp(), bug);
  sync_block();
  if (bug == Bug::overwritten_too_early) right[threadIdx.x] = 0x3f;
  float sums[2][1][4] = {};
  const uint64_t operand = swizzled_operand(shared_address(right));
  if (bug != Bug::no_fence) fence_products();
  const int off = bug == Bug::different_operands && warp() == 2 ? 2 : 0;
  multiply_async(sums[0], left, operand + off, bf16{});
  commit_products();
  if (bug == Bug::left_changed_too_early) left[0] = 0;
  if (bug == Bug::no_wait_for_products) {
    for (int i = 0; i < 4; ++i) out[threadIdx.x * 4 + i] = sums[0][0][i];
  }
  wait_for_products(sums);
  if (bug == Bug::no_wait_for_products) return;
  for (int i = 0; i < 4; ++i) out[threadIdx.x * 4 + i] = sums[0][0][i];
}

int wrong_sums(const Data& data, const std::vector<float>& out) {
  int wrong = 0;
  for (int t = 0; t < 128; ++t) {
    for (int i = 0; i < 4; ++i) {
      const int r = t / 32 * 16 + t % 32 / 4 + i / 2 * 8, c = t % 4 * 2 + i % 2;
      wrong += out[static_cast<size_t>(t * 4 + i)] != data.expected[r][c];
    }
  }
  return wrong;
}

struct Planted {
  Bug bug;
  const char* complaint;  // null: wrong results
};

class PlantedAsyncBugTest : public emulation::EmulatedTest {
 protected:
  std::string run(Bug bug) {
    return emulation::complaint(128, [&] { kernel(data, bug, out); }, 4096 + 16, true);
  }
  const Data data;
  std::vector<float> out = std::vector<float>(512);
};
MEDUSA_UNDER_EVERY_SCHEDULE(PlantedAsyncBugTest);

TEST_P(PlantedAsyncBugTest, without_one_products_are_right) {
  EXPECT_EQ(run(Bug::none), "");
  EXPECT_EQ(wrong_sums(data, out), 0);
}

TEST_P(PlantedAsyncBugTest, is_named) {
  constexpr Planted kNamed[] = {
      {Bug::no_wait_for_copies, "nobody waits for"},
      {Bug::wrong_parity, "nobody waits for"},
      {Bug::no_initialisation, "was not initialised"},
      {Bug::too_many_bytes_announced, "a phase that does not end"},
      {Bug::too_few_bytes_announced, "more bytes land than were announced"},
      {Bug::misaligned_copy, "not multiples of 16"},
      {Bug::not_shown_to_products, "not shown to products"},
      {Bug::no_fence, "without a fence"},
      {Bug::different_operands, "multiply by different operands"},
      {Bug::reads_before_the_wait, "before the wait for earlier kernels"},
  };
  for (const Planted& planted : kNamed) {
    const std::string said = run(planted.bug);
    EXPECT_NE(said.find(planted.complaint), said.npos) << planted.complaint << ": " << said;
    EXPECT_NE(said.find("planted_async_bugs_test.cc:"), said.npos) << said;
  }
}

TEST_P(PlantedAsyncBugTest, names_a_kernel_that_starts_early_and_never_waits) {
  const std::string said = emulation::complaint(32, [] {}, 0, true);
  EXPECT_NE(said.find("never waits for earlier kernels"), said.npos) << said;
}

TEST_P(PlantedAsyncBugTest, leaves_wrong_results) {
  for (const Bug bug :
       {Bug::overwritten_too_early, Bug::wrong_swizzle, Bug::not_swizzled_at_all,
        Bug::unaligned_tile, Bug::no_wait_for_products, Bug::left_changed_too_early}) {
    std::fill(out.begin(), out.end(), 0.0f);
    EXPECT_EQ(run(bug), "");
    EXPECT_GT(wrong_sums(data, out), 0) << static_cast<int>(bug);
  }
}

}  // namespace
}  // namespace medusa::cuda
