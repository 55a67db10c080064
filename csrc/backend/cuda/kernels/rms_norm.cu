// out = x / sqrt(mean(x²) + eps) · weight: a block a row, its squares summed in an order that the
// number of columns alone fixes.
#include "backend/cuda/device/dependency.cuh"
#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/reduce.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/launch.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void rms_norm_kernel(RmsNormArgs a) {
  follow_earlier_kernels();
  const int64_t first = int64_t{blockIdx.x} * a.cols;
  const float* x = a.x + first;
  T* out = static_cast<T*>(a.out) + first;
  float squares = 0.0f;
  for (int i = threadIdx.x; i < a.cols; i += kThreads) squares = fmaf(x[i], x[i], squares);
  const float mean = sum_block<kThreads>(squares) / static_cast<float>(a.cols);
  const float scale = 1.0f / sqrtf(mean + a.eps);
  for (int i = threadIdx.x; i < a.cols; i += kThreads) {
    out[i] = from_float<T>(x[i] * scale * a.weight[i]);
  }
}

}  // namespace

void rms_norm(const Stream& stream, Element element, const RmsNormArgs& a) {
  const dim3 grid(static_cast<unsigned>(a.rows));
  switch (element) {
    case Element::f32:
      return launch_early(stream, grid, kThreads, 0, rms_norm_kernel<float>, a);
    case Element::bf16:
      return launch_early(stream, grid, kThreads, 0, rms_norm_kernel<bf16>, a);
    case Element::f16:
      return launch_early(stream, grid, kThreads, 0, rms_norm_kernel<f16>, a);
  }
}

}  // namespace medusa::cuda
