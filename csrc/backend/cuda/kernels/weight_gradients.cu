// Gradients of a backbone's own vectors and of its embedding. A thread adds up its column of the
// rows in an order that their number alone fixes.
#include "backend/cuda/backbone_kernels.h"
#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/reduce.cuh"
#include "backend/cuda/device/shared.cuh"
#include "backend/cuda/device/threads.cuh"
#include "backend/cuda/launch.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

// Grid: pieces of the columns. One thread has all rows of a column: ids may come more than once.
__global__ void __launch_bounds__(kThreads) embed_backward_kernel(EmbedBackwardArgs a) {
  const int64_t column = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (column >= a.cols) return;
  for (int64_t row = 0; row < a.rows; ++row) {
    a.dtable[int64_t{a.ids[row]} * a.cols + column] += a.dx[row * a.dx_stride + column];
  }
}

// Grid: rows, a warp each.
__global__ void __launch_bounds__(kThreads) norm_factors_kernel(NormWeightArgs a) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + warp();
  if (row >= a.rows) return;
  float squares = 0.0f;
  for (int i = lane(); i < a.cols; i += kWarp) {
    const float x = a.x[row * a.cols + i];
    squares += x * x;
  }
  const float mean = sum_warp(squares) / static_cast<float>(a.cols);
  if (lane() == 0) a.factors[row] = 1.0f / sqrtf(mean + a.eps);
}

// sums (cols) += value(row) over all rows. Warp w adds up rows w, w + 8, ...; then the warps are
// added in order.
template <class Value>
__device__ __forceinline__ void add_rows(float* sums, int64_t rows, int64_t cols,
                                         const Value& value) {
  MEDUSA_SHARED(float, of_warp, kThreads);
  const int64_t column = int64_t{blockIdx.x} * kWarp + lane();
  float sum = 0.0f;
  for (int64_t row = warp(); column < cols && row < rows; row += kWarps) {
    sum += value(row, row * cols + column);
  }
  of_warp[threadIdx.x] = sum;
  sync_block();
  if (warp() != 0 || column >= cols) return;
  for (int w = 1; w < kWarps; ++w) sum += of_warp[w * kWarp + lane()];
  sums[column] += sum;
}

// Grid: tiles of 32 columns, a lane each.
__global__ void __launch_bounds__(kThreads) norm_weight_kernel(NormWeightArgs a) {
  add_rows(a.dweight, a.rows, a.cols,
           [&](int64_t row, int64_t at) { return a.dy[at] * a.x[at] * a.factors[row]; });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    column_sums_kernel(float* sums, const T* x, int64_t rows, int64_t cols) {
  add_rows(sums, rows, cols, [&](int64_t, int64_t at) { return to_float(x[at]); });
}

dim3 blocks(int64_t count, int64_t each) {
  return dim3(static_cast<unsigned>((count + each - 1) / each));
}

}  // namespace

void embed_backward(const Stream& stream, const EmbedBackwardArgs& a) {
  launch(stream, blocks(a.cols, kThreads), kThreads, 0, embed_backward_kernel, a);
}

void rms_norm_weight(const Stream& stream, const NormWeightArgs& a) {
  launch(stream, blocks(a.rows, kWarps), kThreads, 0, norm_factors_kernel, a);
  launch(stream, blocks(a.cols, kWarp), kThreads, 0, norm_weight_kernel, a);
}

void column_sums(const Stream& stream, Element element, float* sums, const void* x, int64_t rows,
                 int64_t cols) {
  const dim3 grid = blocks(cols, kWarp);
  if (element == Element::f32) {
    return launch(stream, grid, kThreads, 0, column_sums_kernel<float>, sums,
                  static_cast<const float*>(x), rows, cols);
  }
  launch(stream, grid, kThreads, 0, column_sums_kernel<bf16>, sums, static_cast<const bf16*>(x),
         rows, cols);
}

}  // namespace medusa::cuda
