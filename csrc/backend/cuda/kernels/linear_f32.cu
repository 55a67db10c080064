// The product of linear.cu in f32, on the ordinary cores: a lane a weight row, 8 rows of x a block.
// Tensor cores would round to fewer bits.
#include "backend/cuda/device/async_copy.cuh"
#include "backend/cuda/kernels/linear_reduce.cuh"
#include "backend/cuda/launch.h"

namespace medusa::cuda {
namespace {

constexpr int kRows = 8;
constexpr int kChunk = 32;  // columns
constexpr int kStages = 3;
constexpr int kStage = kRows * kChunk;

__device__ __forceinline__ void load_x(float* to, const LinearArgs& a, int first_row, int column,
                                       int last) {
  constexpr int kVectors = kChunk / 4;
  if (static_cast<int>(threadIdx.x) >= kRows * kVectors) return;
  const int r = threadIdx.x / kVectors, c = threadIdx.x % kVectors * 4;
  const bool inside = first_row + r < a.rows && column + c < last;
  const int64_t at = int64_t{first_row + r} * a.k + column + c;
  copy_async_16(to + r * kChunk + c, static_cast<const float*>(a.x) + (inside ? at : 0), inside);
}

__device__ __forceinline__ void multiply_chunk(float (&sums)[kRows], const float* weights,
                                               const float* x) {
#pragma unroll
  for (int c = 0; c < kChunk; c += 4) {
    const uint4 bits = load_once_16(weights + (c / 4 * 32 + lane()) * 4);
    const float w[4] = {std::bit_cast<float>(bits.x), std::bit_cast<float>(bits.y),
                        std::bit_cast<float>(bits.z), std::bit_cast<float>(bits.w)};
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[r] = fmaf(x[r * kChunk + c + i], w[i], sums[r]);
    }
  }
}

// Grid: (tiles of 128 weight rows, splits, tiles of 8 rows of x).
__global__ void __launch_bounds__(kLinearThreads) linear_f32_kernel(LinearArgs a) {
  MEDUSA_SHARED(float, x, kStages* kStage);
  const int panel = static_cast<int>(blockIdx.x) * kBlockPanels + warp();
  const int first_row = static_cast<int>(blockIdx.z) * kRows;
  const bool has_panel = panel * 32 < a.n;
  const auto range = split_range(a, blockIdx.y);
  const int chunks = (range.last - range.first) / kChunk;
  const auto* weights = static_cast<const float*>(a.weight.codes) + int64_t{panel} * a.k * 32;

  float sums[kRows] = {};
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (stage < chunks) {
      load_x(x + stage * kStage, a, first_row, range.first + stage * kChunk, range.last);
    }
    copy_async_commit();
  }
  for (int chunk = 0; chunk < chunks; ++chunk) {
    const int column = range.first + chunk * kChunk, ahead = chunk + kStages - 1;
    copy_async_wait<kStages - 2>();
    sync_block();
    if (ahead < chunks) {
      load_x(x + ahead % kStages * kStage, a, first_row, range.first + ahead * kChunk, range.last);
    }
    copy_async_commit();
    if (has_panel) {
      multiply_chunk(sums, weights + int64_t{column} * 32, x + chunk % kStages * kStage);
    }
  }
  copy_async_wait<0>();
  if (!join_splits(sums, a)) return;
  if (a.finish == Finish::reduce) {
    MEDUSA_DYNAMIC_SHARED(float, tile);
    for (int r = 0; r < kRows && has_panel; ++r) {
      SumsTile{tile}.put(r, warp() * 32 + lane(), sums[r]);
    }
    sync_block();
    return reduce_tile(a, {tile}, first_row, kRows);
  }
  if (!has_panel) return;
  const int n = panel * 32 + lane();
  for (int r = 0; r < kRows; ++r) {
    if (a.finish == Finish::silu_mul) {
      const float up = shuffle(sums[r], lane() | 16);
      if (lane() < 16) finish_pair<float>(a, first_row + r, n, sums[r], up);
    } else {
      finish_one<float>(a, first_row + r, n, sums[r]);
    }
  }
}

}  // namespace

void linear_f32(const Stream& stream, const LinearArgs& a) {
  const dim3 grid(static_cast<unsigned>((a.n + 127) / 128), static_cast<unsigned>(a.splits),
                  static_cast<unsigned>((a.rows + kRows - 1) / kRows));
  const size_t bytes = a.finish == Finish::reduce ? SumsTile::bytes(kRows) : 0;
  launch(stream, grid, kLinearThreads, bytes, linear_f32_kernel, a);
}

}  // namespace medusa::cuda
