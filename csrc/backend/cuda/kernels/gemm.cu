// c f32 (+)= a · b in bf16 on tensor cores, for many rows.
//
// A block computes a square tile of c, a warp 32 or 64 rows by 32 columns of it. Steps of 32 of the
// inner dimension arrive in shared memory two ahead, each operand as it lies in memory; the turned
// ones are turned by ldmatrix on their way to the registers. An element of c is one chain of
// products of 16, in order, so neither the tile nor its neighbours change its bits.
#include "backend/cuda/device/async_copy.cuh"
#include "backend/cuda/device/matrix.cuh"
#include "backend/cuda/device/shared.cuh"
#include "backend/cuda/device/threads.cuh"
#include "backend/cuda/launch.h"
#include "backend/cuda/train_kernels.h"

namespace medusa::cuda {

void gemm_f32(const Stream& stream, GemmForm form, const GemmArgs& args);

namespace {

constexpr int kDepth = 32;  // of the inner dimension, of one stage
constexpr int kStages = 3;
constexpr int kPad = 8;  // elements: rows start in different banks

// An operand's part of a stage: `kRows` rows of `kColumns` elements, as in memory.
template <int kRows, int kColumns>
struct Part {
  static constexpr int kStride = kColumns + kPad;
  static constexpr int kSize = kRows * kStride;

  // Zeros beyond `rows` and `columns`, which are counted from the part's corner.
  template <int kThreads>
  __device__ __forceinline__ static void load(bf16* to, const bf16* from, int64_t stride,
                                              int64_t rows, int64_t columns) {
    constexpr int kVectors = kColumns / 8;
#pragma unroll
    for (int i = threadIdx.x; i < kRows * kVectors; i += kThreads) {
      const int r = i / kVectors, c = i % kVectors * 8;
      const bool inside = r < rows && c < columns;
      copy_async_16(to + r * kStride + c, inside ? from + r * stride + c : from, inside);
    }
  }
};

// Tiles of kTile rows and columns. kRows: of a warp.
template <GemmForm kForm, int kTile, int kRows>
struct Shape {
  static constexpr int kRowWarps = kTile / kRows, kColumnWarps = kTile / 32;
  static constexpr int kThreads = kRowWarps * kColumnWarps * kWarp;
  static constexpr bool kTurnedA = kForm == GemmForm::turned_a;
  static constexpr bool kTurnedB = kForm == GemmForm::turned_b;
  using A = Part<kTurnedA ? kDepth : kTile, kTurnedA ? kTile : kDepth>;
  using B = Part<kTurnedB ? kTile : kDepth, kTurnedB ? kDepth : kTile>;
  static constexpr int kStage = A::kSize + B::kSize;  // elements
  static constexpr size_t kBytes = sizeof(bf16) * kStages * kStage;
};

// Where a block's tile begins.
struct Corner {
  int64_t row, column;
};

template <class S>
__device__ __forceinline__ void load_stage(bf16* to, const GemmArgs& g, const Corner& at,
                                           int64_t depth) {
  const auto* a = static_cast<const bf16*>(g.a) +
                  (S::kTurnedA ? depth * g.a_stride + at.row : at.row * g.a_stride + depth);
  const auto* b = static_cast<const bf16*>(g.b) +
                  (S::kTurnedB ? at.column * g.b_stride + depth : depth * g.b_stride + at.column);
  const int64_t rows = g.rows - at.row, columns = g.columns - at.column, inner = g.inner - depth;
  S::A::template load<S::kThreads>(to, a, g.a_stride, S::kTurnedA ? inner : rows,
                                   S::kTurnedA ? rows : inner);
  S::B::template load<S::kThreads>(to + S::A::kSize, b, g.b_stride, S::kTurnedB ? columns : inner,
                                   S::kTurnedB ? inner : columns);
}

// Of a: 16 rows from `row` on by 16 of the inner dimension from `depth` on.
template <class S>
__device__ __forceinline__ void load_a(uint32_t (&to)[4], const bf16* a, int row, int depth) {
  const int matrix = lane() / 8, line = lane() % 8;
  if constexpr (S::kTurnedA) {
    const int k = depth + matrix / 2 * 8 + line, m = row + matrix % 2 * 8;
    load_matrices_transposed(to, a + k * S::A::kStride + m);
  } else {
    const int m = row + matrix % 2 * 8 + line, k = depth + matrix / 2 * 8;
    load_matrices(to, a + m * S::A::kStride + k);
  }
}

// Of b: 16 of the inner dimension by 16 columns, two operands of 8.
template <class S>
__device__ __forceinline__ void load_b(uint32_t (&to)[4], const bf16* b, int column, int depth) {
  const int matrix = lane() / 8, line = lane() % 8;
  if constexpr (S::kTurnedB) {
    const int n = column + matrix / 2 * 8 + line, k = depth + matrix % 2 * 8;
    load_matrices(to, b + n * S::B::kStride + k);
  } else {
    const int k = depth + matrix % 2 * 8 + line, n = column + matrix / 2 * 8;
    load_matrices_transposed(to, b + k * S::B::kStride + n);
  }
}

// sums of a lane: [16 rows][8 columns][4]
template <class S, int kBlocks>
__device__ __forceinline__ void multiply(float (&sums)[kBlocks][4][4], const bf16* stage, int row,
                                         int column) {
#pragma unroll
  for (int depth = 0; depth < kDepth; depth += 16) {
    uint32_t right[2][4];
#pragma unroll
    for (int i = 0; i < 2; ++i) load_b<S>(right[i], stage + S::A::kSize, column + i * 16, depth);
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
      uint32_t left[4];
      load_a<S>(left, stage, row + i * 16, depth);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const uint32_t b[2] = {right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]};
        multiply_add(sums[i][j], left, b, bf16{});
      }
    }
  }
}

template <int kBlocks>
__device__ __forceinline__ void store(const GemmArgs& g, const float (&sums)[kBlocks][4][4],
                                      int64_t first_row, int64_t first_column) {
#pragma unroll
  for (int i = 0; i < kBlocks * 16; ++i) {
    const int64_t row = first_row + i / 16 * 16 + i / 2 % 2 * 8 + lane() / 4;
    const int64_t column = first_column + i / 4 % 4 * 8 + lane() % 4 * 2 + i % 2;
    if (row >= g.rows || column >= g.c_columns) continue;
    float* c = g.c + row * g.c_stride + column;
    const float sum = sums[i / 16][i / 4 % 4][i % 4];
    *c = g.accumulate ? *c + sum : sum;
  }
}

// Grid: tiles of rows, tiles of columns.
template <GemmForm kForm, int kTile, int kRows>
__global__ void __launch_bounds__(Shape<kForm, kTile, kRows>::kThreads) gemm_kernel(GemmArgs g) {
  using S = Shape<kForm, kTile, kRows>;
  MEDUSA_DYNAMIC_SHARED(bf16, stages);
  const Corner corner{int64_t{blockIdx.x} * kTile, int64_t{blockIdx.y} * kTile};
  const int row = warp() / S::kColumnWarps * kRows, column = warp() % S::kColumnWarps * 32;
  const bool has_work = corner.row + row < g.rows && corner.column + column < g.c_columns;
  const int steps = static_cast<int>((g.inner + kDepth - 1) / kDepth);

  float sums[kRows / 16][4][4] = {};
  for (int step = 0; step < kStages - 1; ++step) {
    if (step < steps) load_stage<S>(stages + step * S::kStage, g, corner, int64_t{step} * kDepth);
    copy_async_commit();
  }
  for (int step = 0; step < steps; ++step) {
    const int ahead = step + kStages - 1;
    copy_async_wait<kStages - 2>();
    sync_block();
    if (ahead < steps) {
      load_stage<S>(stages + ahead % kStages * S::kStage, g, corner, int64_t{ahead} * kDepth);
    }
    copy_async_commit();
    if (has_work) multiply<S>(sums, stages + step % kStages * S::kStage, row, column);
  }
  copy_async_wait<0>();
  if (has_work) store(g, sums, corner.row + row, corner.column + column);
}

constexpr int64_t divide_up(int64_t n, int64_t by) { return (n + by - 1) / by; }

template <GemmForm kForm, int kTile, int kRows>
void launch_tiles(const Stream& stream, const GemmArgs& g) {
  using S = Shape<kForm, kTile, kRows>;
  const dim3 grid(static_cast<unsigned>(divide_up(g.rows, kTile)),
                  static_cast<unsigned>(divide_up(g.c_columns, kTile)));
  launch(stream, grid, S::kThreads, S::kBytes, gemm_kernel<kForm, kTile, kRows>, g);
}

template <GemmForm kForm>
void launch_form(const Stream& stream, const GemmArgs& g) {
  constexpr int64_t kBlocks = 132;  // one on each multiprocessor of an H100
  if (divide_up(g.rows, 128) * divide_up(g.c_columns, 128) >= kBlocks)
    return launch_tiles<kForm, 128, 64>(stream, g);
  launch_tiles<kForm, 64, 32>(stream, g);
}

}  // namespace

void gemm(const Stream& stream, Element element, GemmForm form, const GemmArgs& g) {
  if (element == Element::f32) return gemm_f32(stream, form, g);
  if (form == GemmForm::plain) return launch_form<GemmForm::plain>(stream, g);
  if (form == GemmForm::turned_b) return launch_form<GemmForm::turned_b>(stream, g);
  launch_form<GemmForm::turned_a>(stream, g);
}

}  // namespace medusa::cuda
