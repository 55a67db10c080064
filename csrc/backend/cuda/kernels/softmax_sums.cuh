#pragma once

#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/threads.cuh"

namespace medusa::cuda {

inline constexpr float kSoftmaxFloor = -88.0f;  // exp() is 0 from here on

// Of e^z and z · e^z, z = (logit - top) / temperature. NaN and whatever lies far below the top
// weigh nothing.
struct SoftmaxSums {
  float weights, exponents;

  __device__ __forceinline__ static float bounded(float z) {
    return z > kSoftmaxFloor ? z : kSoftmaxFloor;
  }
  __device__ __forceinline__ void add(float logit, float top, float inverse) {
    const float z = bounded((logit - top) * inverse);
    const float e = expf(z);
    weights += e;
    exponents = fmaf(z, e, exponents);
  }
  // Sums whose top lies `below` <= 0, over the temperature, under this one's.
  __device__ __forceinline__ void add(const SoftmaxSums& part, float below) {
    const float shift = bounded(below);
    const float e = expf(shift);
    weights = fmaf(e, part.weights, weights);
    exponents = fmaf(e, fmaf(shift, part.weights, part.exponents), exponents);
  }
  __device__ __forceinline__ float entropy() const {
    const float nats = logf(weights) - exponents / weights;
    return nats > 0.0f ? nats : 0.0f;
  }
};

}  // namespace medusa::cuda
