#pragma once

#include <cstdint>
#include <vector>

#include "backend/cuda/kernels.h"
#include "backend/row_batch.h"

namespace medusa::cuda {

/// How a batch's attention is laid out over blocks: a function of the batch alone. Grows to the
/// largest batch, then allocates no more.
class AttentionPlan {
 public:
  /// `group`: query heads that share a key/value head. Throws DeviceError if they do not fit a
  /// tile.
  void lay_out(const RowBatch& batch, int group, int window);

  const std::vector<AttentionSequence>& sequences() const { return sequences_; }
  const std::vector<AttentionTile>& tiles() const { return tiles_; }
  const std::vector<int32_t>& paths() const { return paths_; }  // (rows, path_stride)
  const std::vector<int32_t>& pages() const { return pages_; }  // of all sequences
  int window() const { return window_; }
  int path_stride() const { return path_stride_; }
  // Most that a tile has, or more: a power of two, so that a launch stays the same for a while.
  int num_splits() const { return num_splits_; }

 private:
  bool knows(const RowBatch& batch, int group, int window) const;
  void remember(const RowBatch& batch, int group, int window);
  void add_sequence(const SequenceRows& sequence);
  void add_tiles(const RowBatch& batch, const SequenceRows& sequence, int rows_per_tile,
                 int window);
  void add_paths(const RowBatch& batch);

  std::vector<AttentionSequence> sequences_;
  std::vector<AttentionTile> tiles_;
  std::vector<int32_t> paths_, pages_;
  // What it was laid out for: layers ask for the same.
  std::vector<int32_t> parents_, positions_;
  int group_ = 0, window_ = 0;
  int path_stride_ = 1;
  int num_splits_ = 1;
};

}  // namespace medusa::cuda
