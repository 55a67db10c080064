// Of each row of logits: log-probability and rank of its target, and scale · (softmax - onehot).
// A block a row, its sums in an order that the vocabulary alone fixes.
#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/reduce.cuh"
#include "backend/cuda/launch.h"
#include "backend/cuda/train_kernels.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 512;

struct Greatest {
  __device__ __forceinline__ static float zero() { return -INFINITY; }
  __device__ __forceinline__ static float join(float a, float b) { return fmaxf(a, b); }
};
struct Count {
  __device__ __forceinline__ static int32_t zero() { return 0; }
  __device__ __forceinline__ static int32_t join(int32_t a, int32_t b) { return a + b; }
};

struct Place {
  float top;     // of the row
  int32_t rank;  // logits before the target's: higher, or equal with a lower index
};

__device__ __forceinline__ Place place_of(const float* logits, int64_t vocab, int32_t target) {
  const float bar = logits[target];
  float top = -INFINITY;
  int32_t before = 0;
  for (int64_t i = threadIdx.x; i < vocab; i += kThreads) {
    const float logit = logits[i];
    top = fmaxf(top, logit);
    before += logit > bar || (logit == bar && i < target);
  }
  return {reduce_block<Greatest, kThreads>(top), reduce_block<Count, kThreads>(before)};
}

template <class T>
__global__ void __launch_bounds__(kThreads) cross_entropy_kernel(CrossEntropyArgs a) {
  const int64_t row = blockIdx.x;
  const float* logits = a.logits + row * a.stride;
  T* grad = static_cast<T*>(a.grad) + row * a.stride;
  const int32_t target = a.targets[row];
  if (target < 0) {
    for (int64_t i = threadIdx.x; i < a.stride; i += kThreads) grad[i] = from_float<T>(0.0f);
    if (threadIdx.x == 0) a.scores[row] = {0.0f, -1};
    return;
  }
  const auto [top, rank] = place_of(logits, a.vocab, target);
  float sum = 0.0f;
  for (int64_t i = threadIdx.x; i < a.vocab; i += kThreads) sum += expf(logits[i] - top);
  sum = sum_block<kThreads>(sum);
  const float factor = a.scale / sum;
  for (int64_t i = threadIdx.x; i < a.stride; i += kThreads) {
    const float e = i < a.vocab ? expf(logits[i] - top) : 0.0f;
    grad[i] = from_float<T>((i == target ? e - sum : e) * factor);
  }
  if (threadIdx.x == 0) a.scores[row] = {logits[target] - top - logf(sum), rank};
}

}  // namespace

void cross_entropy(const Stream& stream, Element element, const CrossEntropyArgs& a) {
  const dim3 grid(static_cast<unsigned>(a.rows));
  if (element == Element::f32)
    return launch(stream, grid, kThreads, 0, cross_entropy_kernel<float>, a);
  launch(stream, grid, kThreads, 0, cross_entropy_kernel<bf16>, a);
}

}  // namespace medusa::cuda
