#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <chrono>
#include <numeric>
#include <thread>

#include "base/processors.h"
#include "medusa/error.h"

namespace medusa {
namespace {

TEST(ThreadPool, covers_every_index_once) {
  for (int threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    for (int64_t count : {0, 1, 2, 7, 64, 1000}) {
      std::vector<int> visits(static_cast<size_t>(count));
      pool.parallel_for(count, 1, [&](int64_t first, int64_t last, int) {
        for (int64_t i = first; i < last; ++i) ++visits[static_cast<size_t>(i)];
      });
      EXPECT_EQ(std::accumulate(visits.begin(), visits.end(), int64_t{0}), count);
      for (int n : visits) EXPECT_EQ(n, 1);
    }
  }
}

TEST(ThreadPool, runs_small_work_on_the_caller) {
  ThreadPool pool(3);
  const auto caller = std::this_thread::get_id();
  pool.parallel_for(10, 11, [&](int64_t first, int64_t last, int thread) {
    EXPECT_EQ(std::this_thread::get_id(), caller);
    EXPECT_EQ(last - first, 10);
    EXPECT_EQ(thread, 0);
  });
}

TEST(ThreadPool, a_region_sees_what_the_one_before_wrote) {
  ThreadPool pool(3);
  std::vector<int64_t> values(3 * 64);
  for (int round = 0; round < 2000; ++round) {
    pool.run([&](int thread) {
      // Each thread reads what its neighbour wrote a round ago, in a round of its own parity.
      const size_t mine = static_cast<size_t>(thread) * 64 + static_cast<size_t>(round % 2);
      const size_t other =
          static_cast<size_t>((thread + 1) % 3) * 64 + static_cast<size_t>((round + 1) % 2);
      values[mine] = values[other] + 1;
    });
  }
  EXPECT_EQ(values[1], 2000);
}

TEST(ThreadPool, wakes_threads_that_have_gone_to_sleep) {
  ThreadPool pool(3);
  std::atomic<int> runs{0};
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
    pool.run([&](int) { ++runs; });
  }
  EXPECT_EQ(runs, 15);
}

TEST(ThreadPool, starts_and_stops_without_work) {
  for (int i = 0; i < 50; ++i) ThreadPool pool(1 + i % 4);
}

TEST(ThreadPool, uses_the_processors_of_the_process) {
  EXPECT_GE(available_processors(), 1);
  EXPECT_EQ(ThreadPool(0).num_threads(), available_processors());
  EXPECT_THROW(ThreadPool(-1), InvalidArgument);
}

}  // namespace
}  // namespace medusa
