#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "backend/train_backend.h"
#include "device_case.h"
#include "kernel_case.h"

namespace medusa {

/// A matrix of the host's copy in memory of a back end of training, between guard bytes.
class Placed {
 public:
  Placed(TrainBackend& backend, const Matrix& host)
      : backend_(backend),
        view_(host.view()),
        storage_(backend.allocate(view_.bytes() + 2 * kGuard)) {
    std::memset(storage_.data(), kPattern, storage_.bytes());
    view_.data = static_cast<uint8_t*>(storage_.data()) + kGuard;
    std::memcpy(view_.data, host.view().data, view_.bytes());
  }
  operator Tensor() const { return view_; }  // NOLINT: it is its view
  const Tensor& view() const { return view_; }
  float* floats() const { return static_cast<float*>(view_.data); }
  std::span<float> span() const { return {floats(), static_cast<size_t>(view_.rows * view_.cols)}; }

  /// What it holds when all verbs have happened. A write outside of it fails the test.
  Matrix fetch() const {
    backend_.wait();
    const auto* bytes = static_cast<const uint8_t*>(storage_.data());
    const auto is_pattern = [](uint8_t byte) { return byte == kPattern; };
    EXPECT_TRUE(std::all_of(bytes, bytes + kGuard, is_pattern)) << "written below a tensor";
    const auto* above = bytes + kGuard + view_.bytes();
    EXPECT_TRUE(std::all_of(above, above + kGuard, is_pattern)) << "written above a tensor";
    Matrix host(view_.dtype, view_.rows, view_.cols);
    std::memcpy(host.view().data, view_.data, view_.bytes());
    return host;
  }

 private:
  static constexpr size_t kGuard = 256;  // keeps the tensor aligned
  static constexpr uint8_t kPattern = 0xa5;

  TrainBackend& backend_;
  Tensor view_;
  Buffer storage_;
};

/// Training's verbs on the device under test, for each of its compute types and schedules.
class DeviceTrainTest : public DeviceCaseTest {
 protected:
  double rounding() const { return GetParam().rounding(); }
  Placed placed(const Matrix& host) const { return {*backend, host}; }
  Placed placed(DType type, int64_t rows, int64_t cols) const {
    return {*backend, Matrix(type, rows, cols)};
  }

  const std::shared_ptr<TrainBackend> backend = make_cuda_train_backend(GetParam().compute, 0);
};

#define MEDUSA_FOR_EVERY_TRAIN_CASE(suite)                                        \
  INSTANTIATE_TEST_SUITE_P(                                                       \
      every_case, suite,                                                          \
      testing::ValuesIn(cases_of({ComputeType::bfloat16, ComputeType::float32})), \
      device_case_name)

}  // namespace medusa
