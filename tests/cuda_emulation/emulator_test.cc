#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "backend/cuda/device/async_copy.cuh"
#include "backend/cuda/device/matrix.cuh"
#include "backend/cuda/device/memory.cuh"
#include "backend/cuda/device/reduce.cuh"
#include "backend/cuda/device/shared.cuh"
#include "emulated_test.h"

namespace medusa::cuda {
namespace {

using emulation::complaint;

class EmulatorTest : public emulation::EmulatedTest {};
MEDUSA_UNDER_EVERY_SCHEDULE(EmulatorTest);

TEST_P(EmulatorTest, runs_every_thread_of_every_block_once) {
  std::vector<int> count(3 * 2 * 64);
  emulation::run_kernel({3, 2, 1}, 64, 0, [&] {
    ++count[(blockIdx.y * gridDim.x + blockIdx.x) * blockDim.x + threadIdx.x];
  });
  EXPECT_EQ(count, std::vector<int>(count.size(), 1));
}

TEST_P(EmulatorTest, reduces_warps_and_blocks) {
  std::vector<float> sums(256);
  EXPECT_EQ(complaint(256,
                      [&] {
                        const auto mine = static_cast<float>(threadIdx.x);
                        sums[threadIdx.x] = sum_block<256>(mine) + sum_block<256>(1.0f);
                      }),
            "");
  for (const float sum : sums) EXPECT_EQ(sum, 255 * 128 + 256);
}

TEST_P(EmulatorTest, shuffles_and_votes_within_a_mask) {
  std::vector<int> got(64);
  std::vector<unsigned> votes(64);
  const auto kernel = [&] {
    if (lane() < 16) return;
    got[threadIdx.x] = shuffle(static_cast<int>(threadIdx.x), 20, 0xffff0000u);
    votes[threadIdx.x] = ballot(lane() % 2 == 0, 0xffff0000u);
  };
  EXPECT_EQ(complaint(64, kernel), "");
  EXPECT_EQ(got[31], 20);
  EXPECT_EQ(got[63], 32 + 20);
  EXPECT_EQ(votes[48], 0x55550000u);
}

TEST_P(EmulatorTest, ranks_logits) {
  EXPECT_GT(ranked(1.0f, 3), ranked(1.0f, 4));
  EXPECT_GT(ranked(2.0f, 9), ranked(1.0f, 4));
  EXPECT_GT(ranked(-1.0f, 9), ranked(-2.0f, 4));
  EXPECT_EQ(ranked(-0.0f, 2), ranked(0.0f, 2));
  EXPECT_EQ(ranked(NAN, 2), ranked(-INFINITY, 2));
  EXPECT_GT(ranked(-INFINITY, 2), 0u);
  EXPECT_EQ(ranked_id(ranked(-3.5f, 77)), 77);
  EXPECT_EQ(ranked_value(ranked(-3.5f, 77)), -3.5f);
}

// A lane's fragments by the definition in device/matrix.cuh, products by the definition of one.
template <class T>
void check_product() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  float a[16][16], b[16][8], c[16][8] = {};
  for (auto& row : a) {
    for (float& x : row) x = to_float(from_float<T>(normal(random)));
  }
  for (auto& row : b) {
    for (float& x : row) x = to_float(from_float<T>(normal(random)));
  }
  EXPECT_EQ(complaint(32,
                      [&] {
                        const int g = lane() / 4, t = lane() % 4;
                        const auto of_a = [&](int r, int k) {
                          return pair<T>(a[r][k], a[r][k + 1]);
                        };
                        const auto of_b = [&](int k) { return pair<T>(b[k][g], b[k + 1][g]); };
                        const uint32_t left[4] = {of_a(g, 2 * t), of_a(g + 8, 2 * t),
                                                  of_a(g, 2 * t + 8), of_a(g + 8, 2 * t + 8)};
                        const uint32_t right[2] = {of_b(2 * t), of_b(2 * t + 8)};
                        float sum[4] = {};
                        multiply_add(sum, left, right, T{});
                        for (int i = 0; i < 4; ++i) c[g + i / 2 * 8][2 * t + i % 2] = sum[i];
                      }),
            "");
  for (int r = 0; r < 16; ++r) {
    for (int n = 0; n < 8; ++n) {
      double expected = 0;
      for (int k = 0; k < 16; ++k) expected += double{a[r][k]} * b[k][n];
      EXPECT_NEAR(c[r][n], expected, 1e-5);
    }
  }
}
TEST_P(EmulatorTest, multiplies_bf16_matrices) { check_product<bf16>(); }
TEST_P(EmulatorTest, multiplies_f16_matrices) { check_product<f16>(); }

TEST_P(EmulatorTest, loads_matrices_both_ways) {
  std::vector<uint32_t> straight(32 * 4), transposed(32 * 4);
  const auto kernel = [&] {
    MEDUSA_SHARED(uint16_t, tile, 32 * 8);  // four matrices, one below another
    for (int i = 0; i < 8; ++i)
      tile[threadIdx.x * 8 + i] = static_cast<uint16_t>(threadIdx.x * 8 + i);
    sync_warp();
    uint32_t to[4];
    load_matrices(to, tile + lane() * 8);
    for (int m = 0; m < 4; ++m) straight[lane() * 4 + m] = to[m];
    load_matrices_transposed(to, tile + lane() * 8);
    for (int m = 0; m < 4; ++m) transposed[lane() * 4 + m] = to[m];
  };
  EXPECT_EQ(complaint(32, kernel), "");
  for (int l = 0; l < 32; ++l) {
    for (int m = 0; m < 4; ++m) {
      const unsigned g = l / 4, t = l % 4, base = m * 64;
      EXPECT_EQ(straight[l * 4 + m], (base + g * 8 + 2 * t) | (base + g * 8 + 2 * t + 1) << 16);
      EXPECT_EQ(transposed[l * 4 + m], (base + 2 * t * 8 + g) | (base + (2 * t + 1) * 8 + g) << 16);
    }
  }
}

TEST_P(EmulatorTest, copies_land_at_their_wait) {
  alignas(16) float from[2][4] = {{1, 2, 3, 4}, {5, 6, 7, 8}};
  float first = 0, second = 0, zero = 1;
  const auto kernel = [&] {
    MEDUSA_SHARED(float, to, 12);
    if (lane() == 0) {
      copy_async_16(to + 0, from[0], true);
      copy_async_commit();
      copy_async_16(to + 4, from[1], true);
      copy_async_16(to + 8, from[1], false);
      copy_async_commit();
      copy_async_wait<1>();
      first = to[3];
      EXPECT_NE(to[4], to[4]);  // not yet
      copy_async_wait<0>();
      second = to[4];
      zero = to[8];
    }
  };
  EXPECT_EQ(complaint(32, kernel), "");
  EXPECT_EQ(first, 4);
  EXPECT_EQ(second, 5);
  EXPECT_EQ(zero, 0);
}

}  // namespace
}  // namespace medusa::cuda
