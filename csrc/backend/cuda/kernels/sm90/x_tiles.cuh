#pragma once

#include "backend/cuda/device/async_copy.cuh"
#include "backend/cuda/device/cluster.cuh"
#include "backend/cuda/device/memory.cuh"
#include "backend/cuda/device/warpgroup.cuh"
#include "backend/cuda/kernels/linear_finish.cuh"
#include "backend/cuda/kernels/weight_formats.cuh"

// x on its way into shared memory, 64 columns of the block's rows at a time, swizzled; zeros beyond
// rows and columns. Both ways have four tiles of memory, and the verbs
//   begin()     asks for the first chunks
//   bring(c)    before a barrier of the block: chunk c is in tile(c), once all have done so
//   free(c)     after that barrier: what chunk c came through may be written again
//   ask(c)      for what comes after chunk c
namespace medusa::cuda {

inline constexpr int kXStages = 4;
constexpr size_t x_bytes(int rows) { return size_t{kXStages} * rows * kSwizzledRow; }

// The columns of a block.
struct XColumns {
  const LinearArgs& a;
  int first_row;
  SplitRange range;

  __device__ __forceinline__ int chunks() const {
    return (range.last - range.first + kChunk - 1) / kChunk;
  }
  __device__ __forceinline__ int column(int chunk) const { return range.first + chunk * kChunk; }
  // Whether there are 8 columns at a piece of a chunk's row.
  __device__ __forceinline__ bool has(int row, int chunk, int piece) const {
    return first_row + row < a.rows && column(chunk) + piece * 8 < range.last;
  }
  template <class T>
  __device__ __forceinline__ const T* at(int row, int chunk) const {
    return static_cast<const T*>(a.x) + int64_t{first_row + row} * a.k + column(chunk);
  }
};

// By copies of 16 bytes, three chunks ahead.
template <class T, int kTiles>
struct OwnX {
  static constexpr int kTile = kTiles * 8 * kSwizzledRow, kPieces = kChunk / 8;

  unsigned char* memory;  // [stage][row][64]
  XColumns x;

  __device__ __forceinline__ const unsigned char* tile(int chunk) const {
    return memory + chunk % kXStages * kTile;
  }
  __device__ __forceinline__ void load(int chunk) const {
    if (chunk < x.chunks()) {
      unsigned char* to = memory + chunk % kXStages * kTile;
#pragma unroll
      for (int i = threadIdx.x; i < kTiles * 8 * kPieces; i += kLinearThreads) {
        const int r = i / kPieces, piece = i % kPieces;
        const bool inside = x.has(r, chunk, piece);
        const T* from = inside ? x.at<T>(r, chunk) + piece * 8 : static_cast<const T*>(x.a.x);
        copy_async_16(to + swizzled(r, piece), from, inside);
      }
    }
    copy_async_commit();
  }
  __device__ __forceinline__ void begin() const {
    for (int chunk = 0; chunk < kXStages - 1; ++chunk) load(chunk);
  }
  __device__ __forceinline__ void bring(int) const {
    copy_async_wait<kXStages - 2>();
    show_to_products();
  }
  __device__ __forceinline__ void free(int) const {}
  __device__ __forceinline__ void ask(int chunk) const { load(chunk + kXStages - 1); }
};

// By bulk copies that blocks of neighbouring tiles make for each other: block i of `sharers` asks
// for rows i, i + sharers, ... and all get them. Rows come as they lie in memory, two chunks ahead,
// and are swizzled here.
template <class T, int kTiles>
struct SharedX {
  static constexpr int kTile = kTiles * 8 * kSwizzledRow, kPieces = kChunk / 8, kStages = 2;

  unsigned char* memory;  // two tiles [row][64], swizzled, then [stage][row][64]
  uint64_t* landed;       // [stage]
  uint64_t* freed;        // [stage], by every sharer
  XColumns x;
  int sharers, first_sharer;  // ranks

  __device__ __forceinline__ const unsigned char* tile(int chunk) const {
    return memory + chunk % 2 * kTile;
  }
  __device__ __forceinline__ unsigned char* raw(int chunk) const {
    return memory + (2 + chunk % kStages) * kTile;
  }
  // By one thread.
  __device__ __forceinline__ void init() const {
    for (int stage = 0; stage < kStages; ++stage) {
      init_barrier(landed + stage, 1);
      init_barrier(freed + stage, sharers);
    }
    show_barriers_to_copies();
  }
  // This block's share of a chunk, to all.
  __device__ __forceinline__ void send(int chunk) const {
    const int stage = chunk % kStages, rows = min(kTiles * 8, x.a.rows - x.first_row);
    const uint32_t bytes = min(kChunk, x.range.last - x.column(chunk)) * sizeof(T);
    if (threadIdx.x == 0) arrive_expecting(landed + stage, rows * bytes);
    const uint32_t all = ((1u << sharers) - 1) << first_sharer;
    const int r = cluster_rank() - first_sharer + static_cast<int>(threadIdx.x) * sharers;
    if (r < rows) {
      copy_bulk_to_peers(all, raw(chunk) + r * kSwizzledRow, x.at<T>(r, chunk), bytes,
                         landed + stage);
    }
  }
  __device__ __forceinline__ void begin() const {
    for (int chunk = 0; chunk < kStages && chunk < x.chunks(); ++chunk) send(chunk);
  }
  __device__ __forceinline__ void bring(int chunk) const {
    wait_barrier(landed + chunk % kStages, chunk / kStages % 2);
    unsigned char* to = memory + chunk % 2 * kTile;
#pragma unroll
    for (int i = threadIdx.x; i < kTiles * 8 * kPieces; i += kLinearThreads) {
      const int r = i / kPieces, piece = i % kPieces;
      uint4 value = {0, 0, 0, 0};
      if (x.has(r, chunk, piece)) value = load_16(raw(chunk) + r * kSwizzledRow + piece * 16);
      store_16(to + swizzled(r, piece), value);
    }
    show_to_products();
  }
  // Nobody waits for the last stages to be free.
  __device__ __forceinline__ void free(int chunk) const {
    if (chunk + kStages < x.chunks() && static_cast<int>(threadIdx.x) < sharers) {
      arrive_at_peer(freed + chunk % kStages, first_sharer + static_cast<int>(threadIdx.x));
    }
  }
  // All threads wait, though few send: products that run must not meet warps that differ.
  __device__ __forceinline__ void ask(int chunk) const {
    if (chunk + kStages >= x.chunks()) return;
    wait_for_peers(freed + chunk % kStages, chunk / kStages % 2);
    send(chunk + kStages);
  }
};

}  // namespace medusa::cuda
