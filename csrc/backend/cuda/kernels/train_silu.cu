// A Medusa head's block, x + silu(z + bias), and its gradient.
#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/shared.cuh"
#include "backend/cuda/device/threads.cuh"
#include "backend/cuda/launch.h"
#include "backend/cuda/train_kernels.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// Grid: rows.
template <class T>
__global__ void residual_silu_kernel(ResidualSiluArgs a) {
  const int64_t row = blockIdx.x;
  T* out = static_cast<T*>(a.out) + row * a.columns;
  const T* x = static_cast<const T*>(a.x) + row * a.x_stride;
  float* z = a.z + row * a.columns;
  for (int64_t i = threadIdx.x; i < a.columns; i += kThreads) {
    const float sum = z[i] + a.bias[i];
    z[i] = sum;
    out[i] = from_float<T>(to_float(x[i]) + sum * sigmoid(sum));
  }
}

// Grid: tiles of 32 columns, a lane each. Warp w adds up rows w, w + 8, ...; then the warps are
// added in order.
template <class T>
__global__ void __launch_bounds__(kThreads) silu_backward_kernel(SiluBackwardArgs a) {
  MEDUSA_SHARED(float, of_warp, kThreads);
  const int64_t column = int64_t{blockIdx.x} * kWarp + lane();
  float sum = 0.0f;
  for (int64_t row = warp(); column < a.columns && row < a.rows; row += kWarps) {
    const int64_t at = row * a.columns + column;
    const float s = sigmoid(a.z[at]);
    const float grad = a.dh[at] * s * (1.0f + a.z[at] * (1.0f - s));
    static_cast<T*>(a.dz)[at] = from_float<T>(grad);
    sum += grad;
  }
  of_warp[threadIdx.x] = sum;
  sync_block();
  if (warp() != 0 || column >= a.columns) return;
  for (int w = 1; w < kWarps; ++w) sum += of_warp[w * kWarp + lane()];
  a.dbias[column] += sum;
}

}  // namespace

void residual_silu(const Stream& stream, Element element, const ResidualSiluArgs& a) {
  const dim3 grid(static_cast<unsigned>(a.rows));
  if (element == Element::f32)
    return launch(stream, grid, kThreads, 0, residual_silu_kernel<float>, a);
  launch(stream, grid, kThreads, 0, residual_silu_kernel<bf16>, a);
}

void silu_backward(const Stream& stream, Element element, const SiluBackwardArgs& a) {
  const dim3 grid(static_cast<unsigned>((a.columns + kWarp - 1) / kWarp));
  if (element == Element::f32)
    return launch(stream, grid, kThreads, 0, silu_backward_kernel<float>, a);
  launch(stream, grid, kThreads, 0, silu_backward_kernel<bf16>, a);
}

}  // namespace medusa::cuda
