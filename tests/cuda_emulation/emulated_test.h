#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "emulator.h"

namespace medusa::emulation {

/// Runs under every schedule.
class EmulatedTest : public testing::TestWithParam<Schedule> {
 protected:
  void SetUp() override { set_schedule(GetParam(), 7); }
  void TearDown() override { set_schedule(Schedule::greedy); }
};

inline std::string schedule_name(const testing::TestParamInfo<Schedule>& info) {
  constexpr const char* kNames[] = {"greedy", "reverse", "random"};
  return kNames[static_cast<int>(info.param)];
}

#define MEDUSA_UNDER_EVERY_SCHEDULE(suite)                                         \
  INSTANTIATE_TEST_SUITE_P(every_schedule, suite,                                  \
                           testing::Values(::medusa::emulation::Schedule::greedy,  \
                                           ::medusa::emulation::Schedule::reverse, \
                                           ::medusa::emulation::Schedule::random), \
                           ::medusa::emulation::schedule_name)

/// What the emulator says of a kernel of one cluster, most often of one block; empty if nothing.
inline std::string complaint(int threads, const std::function<void()>& kernel,
                             size_t shared_bytes = 0, bool early = false, unsigned blocks = 1) {
  try {
    run_kernel({blocks, 1, 1}, threads, shared_bytes, kernel, early, {blocks, 1, 1});
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace medusa::emulation
