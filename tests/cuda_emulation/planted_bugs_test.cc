#include <gtest/gtest.h>

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
using emulation::Schedule;

class PlantedBugTest : public emulation::EmulatedTest {
 protected:
  // It names this file too.
  static void expect_complaint(const std::string& about, int threads,
                               const std::function<void()>& kernel) {
    const std::string said = complaint(threads, kernel);
    EXPECT_NE(said.find(about), said.npos) << "said: " << said;
    EXPECT_NE(said.find("planted_bugs_test.cc:"), said.npos) << "said: " << said;
  }
};
MEDUSA_UNDER_EVERY_SCHEDULE(PlantedBugTest);

// Planted bugs that the emulator must name.

TEST_P(PlantedBugTest, names_a_divergent_barrier) {
  expect_complaint("divergent barrier", 64, [] {
    if (warp() == 0) {
      sync_block();
    } else {
      sync_block();
    }
  });
}

TEST_P(PlantedBugTest, names_a_barrier_that_some_threads_never_reach) {
  const std::string said = complaint(64, [] {
    if (threadIdx.x == 40) return;
    sync_block();
  });
  EXPECT_NE(said.find("barrier"), said.npos) << said;
}

TEST_P(PlantedBugTest, names_a_deadlock) {
  expect_complaint("deadlock", 32, [] {
    if (lane() < 16) sync_warp();
  });
}

TEST_P(PlantedBugTest, names_masks_that_overlap) {
  expect_complaint("meet lanes of mask", 32,
                   [] { sync_warp(lane() < 16 ? 0x0001ffffu : 0xffff8000u); });
}

TEST_P(PlantedBugTest, names_a_lane_outside_of_its_own_mask) {
  expect_complaint("not in its own mask", 32, [] { sync_warp(0x0000fffeu); });
}

TEST_P(PlantedBugTest, names_a_shuffle_from_outside_of_the_mask) {
  expect_complaint("outside of its mask", 32, [] {
    if (lane() < 16) shuffle(1, 20, 0x0000ffffu);
  });
}

TEST_P(PlantedBugTest, names_different_collectives_of_one_mask) {
  expect_complaint("different collectives", 32, [] {
    if (lane() % 2 == 0) {
      sync_warp();
    } else {
      ballot(true);
    }
  });
}

TEST_P(PlantedBugTest, names_an_index_outside_of_a_shared_array) {
  const auto kernel = [] {
    MEDUSA_SHARED(int, values, 16);
    volatile int v = values[threadIdx.x];
    (void)v;
  };
  expect_complaint("outside of shared array values[16]", 32, kernel);
}

TEST_P(PlantedBugTest, names_an_index_outside_of_dynamic_shared_memory) {
  const auto kernel = [] {
    MEDUSA_DYNAMIC_SHARED(float, values);
    values[threadIdx.x] = 1;
  };
  EXPECT_EQ(complaint(32, kernel, 32 * sizeof(float)), "");
  const std::string said = complaint(32, kernel, 31 * sizeof(float));
  EXPECT_NE(said.find("index 31 is outside"), said.npos) << said;
}

TEST_P(PlantedBugTest, names_a_copy_that_nobody_waits_for) {
  alignas(16) static float from[4] = {};
  expect_complaint("nobody waits for", 32, [] {
    MEDUSA_SHARED(float, to, 4);
    if (lane() == 0) copy_async_16(to + 0, from, true);
  });
}

TEST_P(PlantedBugTest, names_a_copy_to_a_misaligned_address) {
  alignas(16) static float from[8] = {};
  expect_complaint("multiples of 16", 32, [] {
    MEDUSA_SHARED(float, to, 8);
    copy_async_16(to + 1, from, true);
  });
}

TEST_P(PlantedBugTest, names_matrix_rows_outside_of_shared_memory) {
  expect_complaint("outside of shared memory", 32, [] {
    MEDUSA_SHARED(uint16_t, tile, 31 * 8);
    uint32_t to[4];
    load_matrices(to, (tile + 0) + lane() * 8);
  });
}

TEST_P(PlantedBugTest, names_a_misaligned_access) {
  alignas(16) static float values[8] = {};
  expect_complaint("not a multiple of 16", 32, [] { load_16(values + 1); });
}

// Planted bugs that leave wrong results behind under at least one schedule of those that every
// kernel test runs.

int wrong_results(const std::function<void(std::vector<float>&)>& kernel, float expected) {
  int wrong = 0;
  for (const Schedule schedule : {Schedule::greedy, Schedule::reverse, Schedule::random}) {
    emulation::set_schedule(schedule, 3);
    std::vector<float> out(256, 0.0f);
    emulation::run_kernel({1, 1, 1}, 256, 0, [&] { kernel(out); });
    for (const float value : out) wrong += value != expected;
  }
  emulation::set_schedule(Schedule::greedy);
  return wrong;
}

TEST(PlantedBug, missing_barrier_before_others_are_read) {
  const auto kernel = [](std::vector<float>& out) {
    MEDUSA_SHARED(float, values, 256);
    values[threadIdx.x] = 1;
    out[threadIdx.x] = values[255 - threadIdx.x];
  };
  EXPECT_GT(wrong_results(kernel, 1), 0);
}

TEST(PlantedBug, missing_barrier_before_the_next_write) {
  const auto leaky_sum = [](float value) {
    MEDUSA_SHARED(float, of_warp, 8);
    value = sum_warp(value);
    if (lane() == 0) of_warp[warp()] = value;
    sync_block();
    return sum_warp(lane() < 8 ? of_warp[lane()] : 0.0f);
  };
  const auto kernel = [&](std::vector<float>& out) {
    const float first = leaky_sum(1);
    out[threadIdx.x] = first + leaky_sum(10);
  };
  EXPECT_GT(wrong_results(kernel, 256 + 2560), 0);
}

TEST(PlantedBug, wrong_lane) {
  const auto kernel = [](std::vector<float>& out) {
    float sum = static_cast<float>(lane());
    for (int bits = 16; bits > 1; bits /= 2) sum += shuffle_xor(sum, bits);  // stops too early
    out[threadIdx.x] = sum;
  };
  EXPECT_GT(wrong_results(kernel, 31 * 16), 0);
}

TEST(PlantedBug, missing_wait) {
  alignas(16) static const float from[4] = {1, 1, 1, 1};
  const auto kernel = [](std::vector<float>& out) {
    MEDUSA_SHARED(float, to, 1024);
    copy_async_16(to + threadIdx.x * 4, from, true);
    copy_async_commit();
    sync_block();
    out[threadIdx.x] = to[threadIdx.x * 4];
    copy_async_wait<0>();
  };
  EXPECT_GT(wrong_results(kernel, 1), 0);
}

}  // namespace
}  // namespace medusa::cuda
