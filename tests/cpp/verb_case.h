#pragma once

#include <cmath>
#include <functional>

#include "backend/cpu/cpu_train_backend.h"
#include "kernel_case.h"

namespace medusa {

namespace cpu {
const TrainKernels& amx_emulated_train_kernels();
}  // namespace cpu

/// One table of training kernels and compute type that this machine can run.
struct VerbCase {
  const cpu::TrainKernels* kernels;
  ComputeType compute;

  std::shared_ptr<BackboneTrainBackend> backend(int threads = 2) const {
    return make_cpu_train_backend(*kernels, compute, threads);
  }
  DType dtype() const { return compute == ComputeType::float32 ? DType::f32 : DType::bf16; }
  double rounding() const { return compute == ComputeType::float32 ? 2e-6 : 1.0 / 128; }
};

inline std::vector<VerbCase> all_verb_cases() {
  std::vector<VerbCase> cases;
  for (const cpu::Isa isa : cpu::supported_isas()) {
    cases.push_back({&cpu::train_kernels(isa), ComputeType::float32});
    cases.push_back({&cpu::train_kernels(isa), ComputeType::bfloat16});
  }
  cases.push_back({&cpu::amx_emulated_train_kernels(), ComputeType::bfloat16});
  return cases;
}

inline std::string verb_case_name(const testing::TestParamInfo<VerbCase>& tested) {
  return std::string(tested.param.kernels->name) + "_" + std::string(name(tested.param.dtype()));
}

class VerbTest : public testing::TestWithParam<VerbCase> {
 protected:
  std::shared_ptr<BackboneTrainBackend> backend = GetParam().backend();
  double rounding = GetParam().rounding();

  Matrix random(int64_t rows, int64_t cols, uint32_t seed) const {
    return random_matrix(GetParam().dtype(), rows, cols, seed);
  }
  Matrix wide(int64_t rows, int64_t cols, uint32_t seed) const {
    return random_matrix(DType::f32, rows, cols, seed);
  }
};

/// Largest difference to expected(row, col), over the largest expected value.
inline double error(const Matrix& found, const std::function<double(int64_t, int64_t)>& expected) {
  double worst = 0, most = 0;
  for (int64_t r = 0; r < found.view().rows; ++r) {
    for (int64_t c = 0; c < found.view().cols; ++c) {
      worst = std::max(worst, std::abs(found.at(r, c) - expected(r, c)));
      most = std::max(most, std::abs(expected(r, c)));
    }
  }
  return worst / most;
}

}  // namespace medusa
