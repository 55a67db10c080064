// With s = 1 / rms(x): dx = s · w · dy - x · s³ · mean(x · w · dy). A block a row, or a warp where
// rows are short, as heads are.
#include "backend/cuda/backbone_kernels.h"
#include "backend/cuda/device/reduce.cuh"
#include "backend/cuda/launch.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kShortRow = 256;  // columns

// `sum` adds up over the threads that share the row, of which this is number `thread`.
template <int kSharing, class SumOver>
__device__ __forceinline__ void one_row(const RmsNormBackwardArgs& a, int64_t row, int thread,
                                        const SumOver& sum) {
  const float *x = a.x + row * a.cols, *dy = a.dy + row * a.cols;
  float* dx = a.dx + row * a.cols;
  float squares = 0.0f, dot = 0.0f;
  for (int i = thread; i < a.cols; i += kSharing) {
    squares = fmaf(x[i], x[i], squares);
    dot = fmaf(x[i] * a.weight[i], dy[i], dot);
  }
  const auto cols = static_cast<float>(a.cols);
  const float s = 1.0f / sqrtf(sum(squares) / cols + a.eps);
  const float pull = s * s * s * sum(dot) / cols;
  for (int i = thread; i < a.cols; i += kSharing) {
    const float grad = a.weight[i] * dy[i] * s - x[i] * pull;
    dx[i] = a.accumulate ? dx[i] + grad : grad;
  }
}

__global__ void __launch_bounds__(kThreads) long_rows_kernel(RmsNormBackwardArgs a) {
  one_row<kThreads>(a, blockIdx.x, static_cast<int>(threadIdx.x),
                    [](float value) { return sum_block<kThreads>(value); });
}

__global__ void __launch_bounds__(kThreads) short_rows_kernel(RmsNormBackwardArgs a, int64_t rows) {
  const int64_t row = int64_t{blockIdx.x} * (kThreads / kWarp) + warp();
  if (row >= rows) return;
  one_row<kWarp>(a, row, lane(), [](float value) { return sum_warp(value); });
}

}  // namespace

void rms_norm_backward(const Stream& stream, const RmsNormBackwardArgs& a, int64_t rows) {
  if (a.cols > kShortRow) {
    const dim3 grid(static_cast<unsigned>(rows));
    return launch(stream, grid, kThreads, 0, long_rows_kernel, a);
  }
  constexpr int64_t kRows = kThreads / kWarp;
  const dim3 grid(static_cast<unsigned>((rows + kRows - 1) / kRows));
  launch(stream, grid, kThreads, 0, short_rows_kernel, a, rows);
}

}  // namespace medusa::cuda
