#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "device.h"
#include "resident.h"

namespace medusa {

/// A compute type and a schedule of the device under test: every kernel test runs for each.
struct DeviceCase {
  ComputeType compute;
  int schedule;

  DType dtype() const {
    return compute == ComputeType::float32   ? DType::f32
           : compute == ComputeType::float16 ? DType::f16
                                             : DType::bf16;
  }
  /// Relative error of one rounding to the compute type.
  double rounding() const {
    return compute == ComputeType::float32 ? 1e-6 : dtype() == DType::f16 ? 1.0 / 2048 : 1.0 / 256;
  }
};

inline std::string name_of(const DeviceCase& c) {
  return std::string(name(c.dtype())) + "_" + device::schedules()[static_cast<size_t>(c.schedule)];
}
inline void PrintTo(const DeviceCase& c, std::ostream* out) { *out << name_of(c); }

inline std::vector<DeviceCase> cases_of(const std::vector<ComputeType>& types) {
  std::vector<DeviceCase> cases;
  for (const ComputeType type : types) {
    for (int i = 0; i < static_cast<int>(device::schedules().size()); ++i) {
      cases.push_back({type, i});
    }
  }
  return cases;
}

inline std::string device_case_name(const testing::TestParamInfo<DeviceCase>& info) {
  return name_of(info.param);
}

/// What every test of the device under test does, whatever its verbs.
class DeviceCaseTest : public testing::TestWithParam<DeviceCase> {
 protected:
  void SetUp() override { device::choose_schedule(GetParam().schedule); }
  void TearDown() override {
    device::check_memory();
    device::choose_schedule(0);
  }
  DType dtype() const { return GetParam().dtype(); }
  Matrix random(int64_t rows, int64_t cols, uint32_t seed) const {
    return random_matrix(dtype(), rows, cols, seed);
  }
};

class DeviceTest : public DeviceCaseTest {
 protected:
  const std::shared_ptr<Backend> backend =
      make_cuda_backend({.compute_type = GetParam().compute}, 0);
};

#define MEDUSA_FOR_EVERY_DEVICE_CASE(suite)                                               \
  INSTANTIATE_TEST_SUITE_P(                                                               \
      every_case, suite,                                                                  \
      testing::ValuesIn(                                                                  \
          cases_of({ComputeType::bfloat16, ComputeType::float16, ComputeType::float32})), \
      device_case_name)

#define MEDUSA_FOR_EVERY_SCHEDULE(suite)      \
  INSTANTIATE_TEST_SUITE_P(every_case, suite, \
                           testing::ValuesIn(cases_of({ComputeType::bfloat16})), device_case_name)

}  // namespace medusa
