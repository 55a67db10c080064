#pragma once

#include "backend/cuda/device/threads.cuh"
#include "backend/cuda/kernels.h"

// Where a row's keys and values lie, by logical position: in the cache below `committed`, in the
// batch above. Both have the same arithmetic, so a row's result does not tell which it was.
namespace medusa::cuda {

// The rows of a tile and what they have in common.
struct AttentionBlock {
  const AttentionArgs& a;
  AttentionTile tile;
  AttentionSequence sequence;
  int kv_head, group;

  __device__ AttentionBlock(const AttentionArgs& args, int tile_index, int head)
      : a(args),
        tile(args.tiles[tile_index]),
        sequence(args.sequences[tile.sequence]),
        kv_head(head),
        group(args.num_heads / args.num_kv_heads) {}

  __device__ int queries() const { return tile.rows * group; }
  __device__ int row(int query) const { return tile.first_row + query / group; }
  __device__ int head(int query) const { return kv_head * group + query % group; }
  // Elements before a query in q and out.
  __device__ int64_t offset(int query) const {
    return (int64_t{row(query)} * a.num_heads + head(query)) * a.head_dim;
  }
  __device__ int position(int query) const { return a.positions[row(query)]; }
  __device__ int lowest(int last) const {
    return a.window > 0 && last >= a.window ? last - a.window + 1 : 0;
  }

  // The key, or value, of a cached position.
  template <class T>
  __device__ const T* cached(const void* pages, int at) const {
    const int64_t page = a.pages[sequence.first_page + at / kAttentionChunk];
    const int64_t tiles = (page * a.num_kv_heads + kv_head) * kAttentionChunk;
    return static_cast<const T*>(pages) + (tiles + at % kAttentionChunk) * a.head_dim;
  }
  // That of a fresh row of the batch.
  template <class T>
  __device__ const T* fresh(const void* rows, int of_row) const {
    return static_cast<const T*>(rows) + (int64_t{of_row} * a.num_kv_heads + kv_head) * a.head_dim;
  }
  // The batch's row at a fresh position that `of_row` sees.
  __device__ int ancestor(int of_row, int at) const {
    const int depth = at - sequence.committed;
    if (sequence.chain != 0) return sequence.first_row + depth;
    return a.paths[int64_t{of_row} * a.path_stride + depth];
  }
};

}  // namespace medusa::cuda
