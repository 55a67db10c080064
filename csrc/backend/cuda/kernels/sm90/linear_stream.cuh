#pragma once

#include "backend/cuda/device/async_copy.cuh"
#include "backend/cuda/device/dependency.cuh"
#include "backend/cuda/device/shared.cuh"
#include "backend/cuda/device/warpgroup.cuh"
#include "backend/cuda/kernels/sm90/linear_join.cuh"
#include "backend/cuda/kernels/sm90/weight_ring.cuh"
#include "backend/cuda/launch.h"

// The product of linear_tiles.cuh for compute capability 9.0: the same weights, the same tiles, the
// same owners of sums. What differs is how weights come and who multiplies. They come by bulk
// copies, 80 KB of a block under way, which the first 80 KB need nobody's result for; x comes as
// before, but swizzled. A warp turns its panel's chunk into registers, 16 rows of it the left
// operand of a product that the block's four warps start together and that runs while the next
// chunk is read. Each output is the same chain of sums for any number of rows.
namespace medusa::cuda {

inline constexpr int kXStages = 4;

// Columns column .. column + 63 of the block's rows, swizzled; zeros beyond rows and columns.
template <class T, int kTiles>
__device__ __forceinline__ void load_swizzled(unsigned char* to, const LinearArgs& a, int first_row,
                                              int column, int last) {
  constexpr int kPieces = kChunk / 8;
#pragma unroll
  for (int i = threadIdx.x; i < kTiles * 8 * kPieces; i += kLinearThreads) {
    const int r = i / kPieces, piece = i % kPieces;
    const bool inside = first_row + r < a.rows && column + piece * 8 < last;
    const int64_t at = int64_t{first_row + r} * a.k + column + piece * 8;
    copy_async_16(to + swizzled(r, piece), static_cast<const T*>(a.x) + (inside ? at : 0), inside);
  }
}

using LeftOperands = uint32_t[kSteps][2][4];  // [16 columns][half of the panel]

// Zeros where a chunk has no columns, or the warp no panel.
template <class Weights>
__device__ __forceinline__ void read_operands(LeftOperands& left, const WeightRing<Weights>& ring,
                                              int chunk, bool has_panel) {
  typename Weights::Chunk codes;
  if (has_panel) ring.read(codes, chunk);
#pragma unroll
  for (int i = 0; i < kSteps * 2; ++i) {
    uint32_t (&to)[4] = left[i / 2][i % 2];
    if (has_panel && i / 2 * 16 < ring.columns_of(chunk)) {
      Weights::operand(to, codes, i / 2, i % 2);
    } else {
      to[0] = to[1] = to[2] = to[3] = 0;
    }
  }
}

// Starts sums += left · x.
template <class T, int kTiles>
__device__ __forceinline__ void start_chunk(float (&sums)[2][kTiles][4], const LeftOperands& left,
                                            const unsigned char* x) {
  const uint64_t right = swizzled_operand(shared_address(x));
  fence_products();
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const uint64_t at = right + step * 2;  // 16 elements on, in units of 16 bytes
    multiply_async(sums[0], left[step][0], at, T{});
    multiply_async(sums[1], left[step][1], at, T{});
  }
  commit_products();
}

// Grid: (tiles of 128 weight rows, splits, tiles of 8 · kTiles rows of x). Cluster: the splits.
template <class Weights, int kTiles>
__global__ void __launch_bounds__(kLinearThreads) linear_sm90_kernel(LinearArgs a) {
  using T = typename Weights::Element;
  using Ring = WeightRing<Weights>;
  constexpr int kStage = kTiles * 8 * kSwizzledRow;
  MEDUSA_SWIZZLED_SHARED(unsigned char, memory);  // x [stage][row][64], then the warps' rings
  MEDUSA_SHARED(uint64_t, landed, kBlockPanels* Ring::kStages);
  let_next_kernel_start();
  const int panel = static_cast<int>(blockIdx.x) * kBlockPanels + warp();
  const int first_row = static_cast<int>(blockIdx.z) * kTiles * 8;
  const bool has_panel = panel * 32 < a.n;
  const auto range = split_range(a, blockIdx.y);
  const Ring ring{memory + (kXStages * kStage + warp() * (Ring::kBytes / kBlockPanels)),
                  landed + warp() * Ring::kStages,
                  Weights::at(a, has_panel ? panel : 0, range.first), range.last - range.first};
  const int chunks = ring.chunks();
  const bool asks = has_panel && lane() == 0;
  if (asks) {
    ring.init();
    for (int chunk = 0; chunk < Ring::kStages; ++chunk) ring.ask_for(chunk);
  }
  wait_for_earlier_kernels();
  sync_block();

  float sums[2][kTiles][4] = {};
  LeftOperands now = {}, next;
  const auto load_x = [&](int chunk) {
    if (chunk < chunks) {
      load_swizzled<T, kTiles>(memory + chunk % kXStages * kStage, a, first_row,
                               range.first + chunk * kChunk, range.last);
    }
    copy_async_commit();
  };
  for (int chunk = 0; chunk < kXStages - 1; ++chunk) load_x(chunk);
  for (int chunk = 0; chunk < chunks; ++chunk) {
    read_operands(next, ring, chunk, has_panel);
    copy_async_wait<kXStages - 2>();
    show_to_products();
    wait_for_products(sums);  // of the last chunk, whose x is overwritten after the barrier
    sync_block();
    load_x(chunk + kXStages - 1);
    for (int i = 0; i < kSteps * 8; ++i) (&now[0][0][0])[i] = (&next[0][0][0])[i];
    start_chunk<T, kTiles>(sums, now, memory + chunk % kXStages * kStage);
    if (asks) ring.ask_for(chunk + Ring::kStages);  // the products have all of it in registers
  }
  wait_for_products(sums);
  copy_async_wait<0>();
  auto& flat = reinterpret_cast<float (&)[2 * kTiles * 4]>(sums);
  auto* tile = reinterpret_cast<float*>(memory + 0);
  if (a.splits == 1) {
    finish_tile<T, kTiles>(a, first_row, panel, has_panel, flat, tile);
  } else {
    finish_together<T, kTiles>(a, first_row, has_panel, flat, tile);
  }
}

template <class Weights, int kTiles>
void launch_stream(const Stream& stream, const LinearArgs& a) {
  const int rows = kTiles * 8;
  const dim3 grid(static_cast<unsigned>((a.n + 127) / 128), static_cast<unsigned>(a.splits),
                  static_cast<unsigned>((a.rows + rows - 1) / rows));
  const size_t bytes = size_t{kXStages} * rows * kSwizzledRow + WeightRing<Weights>::kBytes;
  const dim3 cluster(1, static_cast<unsigned>(a.splits), 1);
  launch_clusters(stream, grid, cluster, kLinearThreads, bytes, linear_sm90_kernel<Weights, kTiles>,
                  a);
}

template <class Weights>
void launch_stream_rows(const Stream& stream, const LinearArgs& a) {
  if (a.rows <= 8) return launch_stream<Weights, 1>(stream, a);
  if (a.rows <= 16) return launch_stream<Weights, 2>(stream, a);
  if (a.rows <= 32) return launch_stream<Weights, 4>(stream, a);
  return launch_stream<Weights, 8>(stream, a);
}

}  // namespace medusa::cuda
