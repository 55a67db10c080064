#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace medusa {

/// Consecutive rows of one sequence. `pages` lists the cache pages of positions 0 .. committed - 1
/// (and room beyond); it is owned by the cache.
struct SequenceRows {
  int first_row = 0;
  int num_rows = 0;
  int committed = 0;  // positions in the cache
  const int32_t* pages = nullptr;
  bool chain = true;  // row i of the sequence is the parent of row i + 1
};

/// A ragged batch: every forward pass, be it prefill, plain decoding or a tree, is one of these.
/// Row r at position p sees, of its own sequence, the cached positions below `committed` and the
/// fresh rows r, parents[r], parents[parents[r]], ... at positions p, p - 1, ..., committed.
struct RowBatch {
  std::vector<int32_t> tokens;     // (rows)
  std::vector<int32_t> positions;  // (rows)
  std::vector<int32_t> parents;    // (rows) row index, -1: none of this batch
  std::vector<SequenceRows> sequences;

  int64_t num_rows() const { return static_cast<int64_t>(tokens.size()); }

  void clear() {
    tokens.clear();
    positions.clear();
    parents.clear();
    sequences.clear();
  }
  void add_row(int32_t token, int32_t position, int32_t parent) {
    tokens.push_back(token);
    positions.push_back(position);
    parents.push_back(parent);
  }
  /// Each token the parent of the next; the first, at `position`, has none in the batch.
  void add_chain(std::span<const int32_t> chain, int32_t position) {
    int32_t parent = -1;
    for (const int32_t token : chain) {
      const auto row = static_cast<int32_t>(num_rows());
      add_row(token, position++, parent);
      parent = row;
    }
  }
};

}  // namespace medusa
