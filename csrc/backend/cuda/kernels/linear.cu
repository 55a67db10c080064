// out = finish(x · Wᵀ + bias) for few rows: W (n, k) is read once, x comes in tiles of at most 64
// rows.
//
// Roles are swapped: 16 rows of W are the 16-row operand of the tensor cores, 8 rows of x the
// 8-column one, so that time follows the number of rows in steps of 8. A warp streams one packed
// panel of 32 weight rows straight into registers, a chunk of 64 columns ahead; the block's four
// warps share the same columns of x, which arrive in shared memory two chunks ahead. k is split
// over blocks by the weight's shape alone and added up in order by the block that comes last. Each
// output is so one fixed chain of sums, whatever else is in the batch.
#include "backend/cuda/device/async_copy.cuh"
#include "backend/cuda/device/matrix.cuh"
#include "backend/cuda/device/memory.cuh"
#include "backend/cuda/kernels/linear_finish.cuh"
#include "backend/cuda/launch.h"

namespace medusa::cuda {

void linear_f32(const Stream& stream, const LinearArgs& args);
inline constexpr int kRowsF32 = 8;  // of a block of linear_f32

namespace {

constexpr int kChunk = 64;  // columns
constexpr int kSteps = kChunk / 16;
constexpr int kStages = 3;
constexpr int kStride = kChunk + 8;  // elements: rows start in different banks

// A warp's next chunk of its panel: 16 bytes a lane of each 16 x 16 tile.
struct WeightChunk {
  uint4 tile[kSteps][2];
};

__device__ __forceinline__ void load_weights(WeightChunk& chunk, const uint4* panel, int column,
                                             int last) {
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const int at = column + step * 16;
    if (at >= last) break;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      chunk.tile[step][half] = load_once_16(panel + (at / 16 * 2 + half) * kWarp + lane());
    }
  }
}

// Columns column .. column + 63 of the block's rows; zeros beyond rows and columns.
template <class T, int kTiles>
__device__ __forceinline__ void load_x(T* to, const LinearArgs& a, int first_row, int column,
                                       int last) {
  constexpr int kVectors = kChunk / 8;
#pragma unroll
  for (int i = threadIdx.x; i < kTiles * 8 * kVectors; i += kLinearThreads) {
    const int r = i / kVectors, c = i % kVectors * 8;
    const bool inside = first_row + r < a.rows && column + c < last;
    const int64_t at = int64_t{first_row + r} * a.k + column + c;
    copy_async_16(to + r * kStride + c, static_cast<const T*>(a.x) + (inside ? at : 0), inside);
  }
}

// sums of a lane: [half of the panel][tile of 8 rows][4]
template <class T, int kTiles>
__device__ __forceinline__ void multiply_chunk(float (&sums)[2][kTiles][4],
                                               const WeightChunk& weights, const T* x, int steps) {
#pragma unroll
  for (int pair = 0; pair < kSteps / 2; ++pair) {  // a split has a multiple of 32 columns
    if (pair * 2 >= steps) break;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      uint32_t b[4];
      load_matrices(b, x + (tile * 8 + lane() % 8) * kStride + pair * 32 + lane() / 8 * 8);
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        const uint32_t right[2] = {b[step * 2], b[step * 2 + 1]};
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const uint4 w = weights.tile[pair * 2 + step][half];
          const uint32_t left[4] = {w.x, w.y, w.z, w.w};
          multiply_add(sums[half][tile], left, right, T{});
        }
      }
    }
  }
}

template <class T, int kTiles>
__device__ __forceinline__ void finish(const LinearArgs& a, int first_row, int panel,
                                       const float (&sums)[2 * kTiles * 4]) {
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = first_row + tile * 8 + lane() % 4 * 2 + i % 2;
      const int n = panel * 32 + lane() / 4 + i / 2 * 8;
      const float low = sums[tile * 4 + i], high = sums[(kTiles + tile) * 4 + i];
      if (a.finish == Finish::silu_mul) {
        finish_pair<T>(a, row, n, low, high);
      } else {
        finish_one<T>(a, row, n, low);
        finish_one<T>(a, row, n + 16, high);
      }
    }
  }
}

// Grid: (tiles of 128 weight rows, splits, tiles of 8 · kTiles rows of x).
template <class T, int kTiles>
__global__ void __launch_bounds__(kLinearThreads) linear_kernel(LinearArgs a) {
  MEDUSA_DYNAMIC_SHARED(T, x);  // [stage][row][kStride]
  constexpr int kStage = kTiles * 8 * kStride;
  const int panel = static_cast<int>(blockIdx.x) * kBlockPanels + warp();
  const int first_row = static_cast<int>(blockIdx.z) * kTiles * 8;
  const bool has_panel = panel * 32 < a.n;
  const auto range = split_range(a, blockIdx.y);
  const int chunks = (range.last - range.first + kChunk - 1) / kChunk;
  const auto* weights =
      static_cast<const uint4*>(a.weight) + int64_t{panel} * (a.k / 16) * 2 * kWarp;

  float sums[2][kTiles][4] = {};
  WeightChunk now, next;
  if (has_panel) load_weights(next, weights, range.first, range.last);
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (stage < chunks) {
      load_x<T, kTiles>(x + stage * kStage, a, first_row, range.first + stage * kChunk, range.last);
    }
    copy_async_commit();
  }
  for (int chunk = 0; chunk < chunks; ++chunk) {
    const int column = range.first + chunk * kChunk, ahead = chunk + kStages - 1;
    now = next;
    if (has_panel && chunk + 1 < chunks) load_weights(next, weights, column + kChunk, range.last);
    copy_async_wait<kStages - 2>();
    sync_block();
    if (ahead < chunks) {
      load_x<T, kTiles>(x + ahead % kStages * kStage, a, first_row, range.first + ahead * kChunk,
                        range.last);
    }
    copy_async_commit();
    if (has_panel) {
      multiply_chunk<T, kTiles>(sums, now, x + chunk % kStages * kStage,
                                (range.last - column) / 16);
    }
  }
  copy_async_wait<0>();
  auto& flat = reinterpret_cast<float (&)[2 * kTiles * 4]>(sums);
  if (join_splits(flat, a) && has_panel) finish<T, kTiles>(a, first_row, panel, flat);
}

template <class T, int kTiles>
void launch_tiles(const Stream& stream, const LinearArgs& a) {
  const int rows = kTiles * 8;
  const dim3 grid(static_cast<unsigned>((a.n + 127) / 128), static_cast<unsigned>(a.splits),
                  static_cast<unsigned>((a.rows + rows - 1) / rows));
  launch(stream, grid, kLinearThreads, sizeof(T) * kStages * rows * kStride,
         linear_kernel<T, kTiles>, a);
}

template <class T>
void launch_rows(const Stream& stream, const LinearArgs& a) {
  if (a.rows <= 8) return launch_tiles<T, 1>(stream, a);
  if (a.rows <= 16) return launch_tiles<T, 2>(stream, a);
  if (a.rows <= 32) return launch_tiles<T, 4>(stream, a);
  return launch_tiles<T, 8>(stream, a);
}

constexpr int64_t divide_up(int64_t n, int64_t by) { return (n + by - 1) / by; }

}  // namespace

int linear_splits(int64_t k, int64_t n) {
  constexpr int64_t kBlocks = 132;    // one on each multiprocessor of an H100
  constexpr int64_t kLeast = 4 * 64;  // columns that make a block worthwhile
  const int64_t tiles = divide_up(n, 128);
  const int64_t wanted = divide_up(kBlocks, tiles), most = k / kLeast;
  return static_cast<int>(wanted < most ? wanted : most < 1 ? 1 : most);
}

int64_t linear_tiles(Element element, int64_t rows, int64_t n) {
  return divide_up(n, 128) * divide_up(rows, element == Element::f32 ? kRowsF32 : 64);
}

// 128 rows of the weight times the rows of a tile, for every tile and split.
int64_t linear_partials(Element element, int64_t rows, int64_t n, int splits) {
  return linear_tiles(element, rows, n) * splits * 128 * (element == Element::f32 ? kRowsF32 : 64);
}

void linear(const Stream& stream, Element element, const LinearArgs& a) {
  switch (element) {
    case Element::f32:
      return linear_f32(stream, a);
    case Element::bf16:
      return launch_rows<bf16>(stream, a);
  }
}

}  // namespace medusa::cuda
