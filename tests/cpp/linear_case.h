#pragma once

#include <cmath>

#include "kernel_case.h"

namespace medusa {

inline double silu(double x) { return x / (1 + std::exp(-x)); }

/// A weight with its bias, packed, and both once more as the test sees them.
struct Layer {
  Matrix weight, bias;
  Weight packed;

  Layer(Backend& backend, int64_t n, int64_t k, uint32_t seed)
      : weight(random_matrix(backend.compute_dtype(), n, k, seed,
                             1 / std::sqrt(static_cast<float>(k)))),
        bias(random_matrix(DType::f32, 1, n, seed + 1)) {
    const HostTensor w = host_tensor(weight), b = host_vector(bias);
    packed = backend.prepare_weight({.parts = {&w}, .biases = {&b}, .name = "w"});
  }
  double expected(const Matrix& x, int64_t row, int64_t column) const {
    double sum = bias.at(0, column);
    for (int64_t k = 0; k < x.view().cols; ++k) sum += x.at(row, k) * weight.at(column, k);
    return sum;
  }
};

}  // namespace medusa
