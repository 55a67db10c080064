#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "emulated_stream.h"
#include "emulator.h"
#include "resident.h"

namespace medusa {

/// A compute type and a schedule of the emulated device: every kernel test runs for each.
struct DeviceCase {
  ComputeType compute;
  emulation::Schedule schedule;

  DType dtype() const { return compute == ComputeType::float32 ? DType::f32 : DType::bf16; }
  /// Relative error of one rounding to the compute type.
  double rounding() const { return compute == ComputeType::float32 ? 1e-6 : 1.0 / 256; }
};

inline std::string device_case_name(const testing::TestParamInfo<DeviceCase>& info) {
  constexpr const char* kSchedules[] = {"greedy", "reverse", "random"};
  return std::string(name(info.param.dtype())) + "_" +
         kSchedules[static_cast<int>(info.param.schedule)];
}

class DeviceTest : public testing::TestWithParam<DeviceCase> {
 protected:
  void SetUp() override { emulation::set_schedule(GetParam().schedule, 11); }
  void TearDown() override {
    emulation::check_device_memory();
    emulation::set_schedule(emulation::Schedule::greedy);
  }
  DType dtype() const { return GetParam().dtype(); }

  const std::shared_ptr<Backend> backend =
      make_cuda_backend({.compute_type = GetParam().compute}, 0);
};

#define MEDUSA_FOR_EVERY_DEVICE_CASE(suite)                                            \
  INSTANTIATE_TEST_SUITE_P(                                                            \
      every_case, suite,                                                               \
      testing::Values(DeviceCase{ComputeType::bfloat16, emulation::Schedule::greedy},  \
                      DeviceCase{ComputeType::bfloat16, emulation::Schedule::reverse}, \
                      DeviceCase{ComputeType::bfloat16, emulation::Schedule::random},  \
                      DeviceCase{ComputeType::float32, emulation::Schedule::greedy},   \
                      DeviceCase{ComputeType::float32, emulation::Schedule::reverse},  \
                      DeviceCase{ComputeType::float32, emulation::Schedule::random}),  \
      device_case_name)

}  // namespace medusa
