// The update of weights: AdamW (Loshchilov and Hutter), and the norm that gradients are clipped by.
#include "backend/cuda/device/reduce.cuh"
#include "backend/cuda/launch.h"
#include "backend/cuda/train_kernels.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kPart = 1 << 13;  // elements whose squares one block adds up

struct SumOfDoubles {
  __device__ __forceinline__ static double zero() { return 0.0; }
  __device__ __forceinline__ static double join(double a, double b) { return a + b; }
};

// Grid: parts.
__global__ void __launch_bounds__(kThreads)
    squared_norm_kernel(double* parts, const float* x, int64_t count) {
  const int64_t first = int64_t{blockIdx.x} * kPart;
  const int64_t last = first + kPart < count ? first + kPart : count;
  double sum = 0.0;
  for (int64_t i = first + threadIdx.x; i < last; i += kThreads) sum += double{x[i]} * x[i];
  sum = reduce_block<SumOfDoubles, kThreads>(sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

// One block.
__global__ void __launch_bounds__(kThreads)
    add_parts_kernel(double* sum, const double* parts, int64_t count) {
  double mine = 0.0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) mine += parts[i];
  mine = reduce_block<SumOfDoubles, kThreads>(mine);
  if (threadIdx.x == 0) *sum = mine;
}

// In torch.optim.AdamW's order of operations.
__global__ void adamw_kernel(AdamArgs a) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= a.count) return;
  const AdamStep& s = a.step;
  const float grad = a.grads[i] * s.grad_scale;
  const float mean = a.mean[i] + (grad - a.mean[i]) * s.rest1;
  const float square = a.square[i] * s.beta2 + grad * grad * s.rest2;
  a.mean[i] = mean;
  a.square[i] = square;
  const float denominator = sqrtf(square) / s.second_correction + s.epsilon;
  a.weights[i] = a.weights[i] * s.decay - s.step_size * mean / denominator;
}

}  // namespace

int64_t squared_norm_parts(int64_t count) { return (count + kPart - 1) / kPart; }

void squared_norm(const Stream& stream, double* sum, double* parts, const float* x, int64_t count) {
  const int64_t blocks = squared_norm_parts(count);
  if (blocks > 0) {
    launch(stream, dim3(static_cast<unsigned>(blocks)), kThreads, 0, squared_norm_kernel, parts, x,
           count);
  }
  launch(stream, dim3(1), kThreads, 0, add_parts_kernel, sum, parts, blocks);
}

void adamw(const Stream& stream, const AdamArgs& a) {
  const dim3 grid(static_cast<unsigned>((a.count + kThreads - 1) / kThreads));
  launch(stream, grid, kThreads, 0, adamw_kernel, a);
}

}  // namespace medusa::cuda
