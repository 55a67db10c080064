// KL(teacher || student) of rows of logits and its gradient, weight · (p_student - p_teacher): a
// block a row, whose sums have an order that the vocabulary alone fixes. With z = logit - max,
// KL = sum of p_teacher · (z_teacher - z_student) + log(sum_student / sum_teacher).
#include "backend/cuda/backbone_kernels.h"
#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/reduce.cuh"
#include "backend/cuda/launch.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 256;

struct Higher {
  __device__ __forceinline__ static float zero() { return -INFINITY; }
  __device__ __forceinline__ static float join(float a, float b) { return fmaxf(a, b); }
};

__device__ __forceinline__ float highest(const float* x, int count) {
  float best = -INFINITY;
  for (int i = threadIdx.x; i < count; i += kThreads) best = fmaxf(best, x[i]);
  return reduce_block<Higher, kThreads>(best);
}

template <class T>
__global__ void __launch_bounds__(kThreads) divergence_kernel(DivergenceArgs a) {
  const int64_t first = int64_t{blockIdx.x} * a.cols;
  const float *student = a.student + first, *teacher = a.teacher + first;
  T* grad = static_cast<T*>(a.grad) + first;
  const float weight = a.weights[blockIdx.x];
  const int real = weight == 0.0f ? 0 : a.vocab;
  for (int i = real + static_cast<int>(threadIdx.x); i < a.cols; i += kThreads) {
    grad[i] = from_float<T>(0.0f);
  }
  if (real == 0) {
    if (threadIdx.x == 0) a.divergences[blockIdx.x] = 0.0;
    return;
  }
  const float top_s = highest(student, real), top_t = highest(teacher, real);
  float sum_s = 0.0f, sum_t = 0.0f, cross = 0.0f;
  for (int i = threadIdx.x; i < real; i += kThreads) {
    const float s = student[i] - top_s, t = teacher[i] - top_t, et = expf(t);
    sum_s += expf(s);
    sum_t += et;
    if (et > 0.0f) cross += et * (t - s);
  }
  const double total_s = sum_block<kThreads>(sum_s), total_t = sum_block<kThreads>(sum_t);
  const double cross_sum = sum_block<kThreads>(cross);
  const auto to_s = static_cast<float>(weight / total_s);
  const auto to_t = static_cast<float>(weight / total_t);
  for (int i = threadIdx.x; i < real; i += kThreads) {
    grad[i] = from_float<T>(expf(student[i] - top_s) * to_s - expf(teacher[i] - top_t) * to_t);
  }
  if (threadIdx.x == 0) {
    a.divergences[blockIdx.x] = cross_sum / total_t + log(total_s / total_t);
  }
}

}  // namespace

void divergence(const Stream& stream, Element element, const DivergenceArgs& a, int64_t rows) {
  const dim3 grid(static_cast<unsigned>(rows));
  if (element == Element::f32) {
    return launch(stream, grid, kThreads, 0, divergence_kernel<float>, a);
  }
  launch(stream, grid, kThreads, 0, divergence_kernel<bf16>, a);
}

}  // namespace medusa::cuda
