#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "backend/ops.h"
#include "tensor/quants.h"

namespace medusa {

/// One kernel table and compute type: every kernel test runs for each that this machine can run.
struct KernelCase {
  const cpu::KernelTable* kernels;
  ComputeType compute;

  std::shared_ptr<Backend> backend(int threads = 1) const {
    return make_cpu_backend(*kernels, {.compute_type = compute, .num_threads = threads});
  }
  DType dtype() const { return compute == ComputeType::float32 ? DType::f32 : DType::bf16; }
  /// Relative error of one rounding to the compute type.
  double rounding() const { return compute == ComputeType::float32 ? 1e-6 : 1.0 / 256; }
};

std::vector<KernelCase> all_kernel_cases();

inline std::string case_name(const testing::TestParamInfo<KernelCase>& info) {
  return std::string(info.param.kernels->name) + "_" + std::string(name(info.param.dtype()));
}

#define MEDUSA_FOR_EVERY_ISA(suite) \
  INSTANTIATE_TEST_SUITE_P(every_isa, suite, testing::ValuesIn(all_kernel_cases()), case_name)

/// A matrix between guard bytes, so that a kernel that writes outside is seen.
class Matrix {
 public:
  Matrix(DType dtype, int64_t rows, int64_t cols)
      : view_{nullptr, dtype, rows, cols}, bytes_(view_.bytes() + 2 * kGuard, kPattern) {
    view_.data = bytes_.data() + kGuard;
    std::memset(view_.data, 0, view_.bytes());
  }
  Matrix(const Matrix&) = delete;
  Matrix(Matrix&& other) noexcept : view_(other.view_), bytes_(std::move(other.bytes_)) {}

  const Tensor& view() const { return view_; }
  operator Tensor() const { return view_; }  // NOLINT: a matrix is its view
  bool guards_intact() const {
    for (size_t i = 0; i < kGuard; ++i) {
      if (bytes_[i] != kPattern || bytes_[bytes_.size() - 1 - i] != kPattern) return false;
    }
    return true;
  }
  double at(int64_t row, int64_t col) const {
    if (view_.dtype == DType::f32) return view_.row<float>(row)[col];
    if (view_.dtype == DType::f16) return half_to_float(view_.row<f16>(row)[col].bits);
    return to_float(view_.row<bf16>(row)[col]);
  }
  void set(int64_t row, int64_t col, float value) {
    if (view_.dtype == DType::f32) {
      view_.row<float>(row)[col] = value;
    } else if (view_.dtype == DType::f16) {
      view_.row<f16>(row)[col] = to_f16(value);
    } else {
      view_.row<bf16>(row)[col] = to_bf16(value);
    }
  }
  void copy_row(int64_t to, const Matrix& from, int64_t row) {
    std::memcpy(view_.row<char>(to), from.view().row<char>(row), view_.row_bytes());
  }
  bool same_row(int64_t row, const Matrix& other, int64_t other_row) const {
    return std::memcmp(view_.row<char>(row), other.view().row<char>(other_row),
                       view_.row_bytes()) == 0;
  }
  bool same(const Matrix& other) const {
    return std::memcmp(view_.data, other.view().data, view_.bytes()) == 0;
  }

 private:
  static constexpr size_t kGuard = 256;
  static constexpr uint8_t kPattern = 0xa5;
  Tensor view_;
  std::vector<uint8_t> bytes_;
};

inline Matrix random_matrix(DType dtype, int64_t rows, int64_t cols, uint32_t seed,
                            float scale = 1.0f) {
  Matrix m(dtype, rows, cols);
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) m.set(r, c, normal(generator));
  }
  return m;
}

inline HostTensor host_tensor(const Matrix& m) {
  return {m.view().data, m.view().bytes(), m.view().dtype, {m.view().rows, m.view().cols}};
}

inline HostTensor host_vector(const Matrix& m) {
  return {m.view().data, m.view().bytes(), m.view().dtype, {m.view().cols}};
}

}  // namespace medusa
