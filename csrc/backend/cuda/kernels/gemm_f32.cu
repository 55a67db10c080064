// The product of gemm.cu in f32, on the ordinary cores, for checks: a block computes 64 x 64 of c,
// a thread 4 x 4. An element is one chain of fused multiply-adds, in order.
#include "backend/cuda/device/shared.cuh"
#include "backend/cuda/device/threads.cuh"
#include "backend/cuda/launch.h"
#include "backend/cuda/train_kernels.h"

namespace medusa::cuda {
namespace {

constexpr int kTile = 64, kDepth = 16, kThreads = 256;
constexpr int kStride = kTile + 4;  // of a part in shared memory, [depth][row or column]

// `across`: elements between rows of a, or columns of b; `along`: of the inner dimension.
struct Operand {
  const float* data;
  int64_t across, along, count;
  bool operator==(const Operand&) const = default;
};

__device__ __forceinline__ void load(float* to, const Operand& x, int64_t first, int64_t depth,
                                     int64_t inner) {
  for (int i = threadIdx.x; i < kTile * kDepth; i += kThreads) {
    // Neighbouring threads read neighbouring elements.
    const int k = x.along == 1 ? i % kDepth : i / kTile, n = x.along == 1 ? i / kDepth : i % kTile;
    const bool inside = first + n < x.count && depth + k < inner;
    to[k * kStride + n] = inside ? x.data[(first + n) * x.across + (depth + k) * x.along] : 0.0f;
  }
}

// Grid: tiles of rows, tiles of columns.
__global__ void __launch_bounds__(kThreads) gemm_f32_kernel(GemmArgs g, Operand a, Operand b) {
  MEDUSA_SHARED(float, left, kDepth* kStride);
  MEDUSA_SHARED(float, right, kDepth* kStride);
  const int64_t first_row = int64_t{blockIdx.x} * kTile, first_column = int64_t{blockIdx.y} * kTile;
  const int row = static_cast<int>(threadIdx.x) / 16 * 4, column = threadIdx.x % 16 * 4;
  float sums[4][4] = {};
  for (int64_t depth = 0; depth < g.inner; depth += kDepth) {
    load(left, a, first_row, depth, g.inner);
    load(right, b, first_column, depth, g.inner);
    sync_block();
    for (int k = 0; k < kDepth; ++k) {
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        sums[i / 4][i % 4] = fmaf(left[k * kStride + row + i / 4],
                                  right[k * kStride + column + i % 4], sums[i / 4][i % 4]);
      }
    }
    sync_block();
  }
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const int64_t r = first_row + row + i / 4, c = first_column + column + i % 4;
    if (r >= g.rows || c >= g.c_columns) continue;
    float* out = g.c + r * g.c_stride + c;
    *out = g.accumulate ? *out + sums[i / 4][i % 4] : sums[i / 4][i % 4];
  }
}

}  // namespace

void gemm_f32(const Stream& stream, GemmForm form, const GemmArgs& g) {
  const auto* a = static_cast<const float*>(g.a);
  const auto* b = static_cast<const float*>(g.b);
  const Operand left = form == GemmForm::turned_a ? Operand{a, 1, g.a_stride, g.rows}
                                                  : Operand{a, g.a_stride, 1, g.rows};
  const Operand right = form == GemmForm::turned_b ? Operand{b, g.b_stride, 1, g.columns}
                                                   : Operand{b, 1, g.b_stride, g.columns};
  const dim3 grid(static_cast<unsigned>((g.rows + kTile - 1) / kTile),
                  static_cast<unsigned>((g.c_columns + kTile - 1) / kTile));
  launch(stream, grid, kThreads, 0, gemm_f32_kernel, g, left, right);
}

}  // namespace medusa::cuda
