#pragma once

#include "backend/backbone_train_backend.h"
#include "train_case.h"

namespace medusa {

/// A backbone's verbs on the device under test, and the CPU's, which are their measure.
class BackboneDeviceTest : public DeviceCaseTest {
 protected:
  /// Of results in C, or of operands that were rounded to it.
  double bound() const { return dtype() == DType::f32 ? 3e-6 : 1.0 / 128; }

  static Matrix wide(int64_t rows, int64_t cols, uint32_t seed, float scale = 1.0f) {
    return random_matrix(DType::f32, rows, cols, seed, scale);
  }

  const std::shared_ptr<BackboneTrainBackend> backend =
      make_cuda_backbone_train_backend(GetParam().compute, 0);
  const std::shared_ptr<BackboneTrainBackend> cpu =
      make_cpu_backbone_train_backend(GetParam().compute, 1);
};

/// Largest difference of two matrices over the largest element of the second.
inline double distance(const Matrix& found, const Matrix& expected) {
  double worst = 0, most = 0;
  for (int64_t r = 0; r < expected.view().rows; ++r) {
    for (int64_t c = 0; c < expected.view().cols; ++c) {
      if (!std::isfinite(found.at(r, c))) return INFINITY;
      worst = std::max(worst, std::abs(found.at(r, c) - expected.at(r, c)));
      most = std::max(most, std::abs(expected.at(r, c)));
    }
  }
  return worst / most;
}

}  // namespace medusa
