#pragma once

#include "backend/cuda/device/dependency.cuh"
#include "backend/cuda/device/shared.cuh"
#include "backend/cuda/device/warpgroup.cuh"
#include "backend/cuda/kernels/sm90/linear_join.cuh"
#include "backend/cuda/kernels/sm90/weight_ring.cuh"
#include "backend/cuda/kernels/sm90/x_tiles.cuh"
#include "backend/cuda/launch.h"

// The product of linear_tiles.cuh for compute capability 9.0: the same weights, the same tiles, the
// same owners of sums. What differs is how weights come and who multiplies. They come by bulk
// copies, 80 KB of a block under way, which the first 80 KB need nobody's result for; x as
// x_tiles.cuh says. A warp turns its panel's chunk into registers, 16 rows of it the left
// operand of a product that the block's four warps start together and that runs while the next
// chunk is read. Each output is the same chain of sums for any number of rows.
namespace medusa::cuda {

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

template <class T, int kTiles, bool kShared>
__device__ __forceinline__ auto x_of(unsigned char* memory, uint64_t* barriers,
                                     const XColumns& columns) {
  if constexpr (kShared) {
    const int sharers = columns.a.sharers, first = cluster_rank() / sharers * sharers;
    return SharedX<T, kTiles>{memory,  barriers, barriers + SharedX<T, kTiles>::kStages,
                              columns, sharers,  first};
  } else {
    return OwnX<T, kTiles>{memory, columns};
  }
}

// Grid: (tiles of 128 weight rows, splits, tiles of 8 · kTiles rows of x). Cluster: the splits of a
// tile, and where x is shared those of neighbouring tiles.
template <class Weights, int kTiles, bool kShared>
__global__ void __launch_bounds__(kLinearThreads) linear_sm90_kernel(LinearArgs a) {
  using T = typename Weights::Element;
  using Ring = WeightRing<Weights>;
  MEDUSA_SWIZZLED_SHARED(unsigned char, memory);  // x, then the warps' rings
  MEDUSA_SHARED(uint64_t, landed, kBlockPanels* Ring::kStages);
  MEDUSA_SHARED(uint64_t, of_x, 4);
  let_next_kernel_start();
  const int panel = static_cast<int>(blockIdx.x) * kBlockPanels + warp();
  const int first_row = static_cast<int>(blockIdx.z) * kTiles * 8;
  const bool has_panel = panel * 32 < a.n;
  const auto range = split_range(a, blockIdx.y);
  const Ring ring{memory + (x_bytes(kTiles * 8) + warp() * (Ring::kBytes / kBlockPanels)),
                  landed + warp() * Ring::kStages,
                  Weights::at(a, has_panel ? panel : 0, range.first), range.last - range.first};
  const auto x = x_of<T, kTiles, kShared>(memory + 0, of_x + 0, {a, first_row, range});
  const int chunks = ring.chunks();
  const bool asks = has_panel && lane() == 0;
  if (asks) {
    ring.init();
    for (int chunk = 0; chunk < Ring::kStages; ++chunk) ring.ask_for(chunk);
  }
  if constexpr (kShared) {
    if (threadIdx.x == 0) x.init();
    arrive_at_cluster();
  }
  wait_for_earlier_kernels();
  if constexpr (kShared) wait_for_cluster();
  sync_block();

  float sums[2][kTiles][4] = {};
  LeftOperands now = {}, next;
  x.begin();
  for (int chunk = 0; chunk < chunks; ++chunk) {
    read_operands(next, ring, chunk, has_panel);
    x.bring(chunk);
    wait_for_products(sums);  // of the last chunk, whose x is overwritten after the barrier
    sync_block();
    x.free(chunk);
    for (int i = 0; i < kSteps * 8; ++i) (&now[0][0][0])[i] = (&next[0][0][0])[i];
    start_chunk<T, kTiles>(sums, now, x.tile(chunk));
    x.ask(chunk);
    if (asks) ring.ask_for(chunk + Ring::kStages);  // the products have all of it in registers
  }
  wait_for_products(sums);
  copy_async_wait<0>();
  auto& flat = reinterpret_cast<float (&)[2 * kTiles * 4]>(sums);
  auto* tile = reinterpret_cast<float*>(memory + 0);
  if (a.splits > 1) return finish_together<T, kTiles, kShared>(a, first_row, has_panel, flat, tile);
  if constexpr (kShared) arrive_at_cluster();
  finish_tile<T, kTiles>(a, first_row, panel, has_panel, flat, tile);
  if constexpr (kShared) wait_for_cluster();
}

template <class Weights, int kTiles, bool kShared = false>
void launch_stream(const Stream& stream, const LinearArgs& a) {
  const int rows = kTiles * 8;
  const dim3 grid(static_cast<unsigned>((a.n + 127) / 128), static_cast<unsigned>(a.splits),
                  static_cast<unsigned>((a.rows + rows - 1) / rows));
  const dim3 cluster(static_cast<unsigned>(kShared ? a.sharers : 1),
                     static_cast<unsigned>(a.splits), 1);
  launch_clusters(stream, grid, cluster, kLinearThreads,
                  x_bytes(rows) + WeightRing<Weights>::kBytes,
                  linear_sm90_kernel<Weights, kTiles, kShared>, a);
}

// Few rows of x are not worth a wait for other blocks.
template <class Weights>
void launch_stream_rows(const Stream& stream, const LinearArgs& a) {
  if (a.rows <= 8) return launch_stream<Weights, 1>(stream, a);
  if (a.rows <= 16) return launch_stream<Weights, 2>(stream, a);
  if (a.sharers > 1) {
    return a.rows <= 32 ? launch_stream<Weights, 4, true>(stream, a)
                        : launch_stream<Weights, 8, true>(stream, a);
  }
  if (a.rows <= 32) return launch_stream<Weights, 4>(stream, a);
  return launch_stream<Weights, 8>(stream, a);
}

}  // namespace medusa::cuda
