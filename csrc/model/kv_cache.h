#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "model/workspace.h"

namespace medusa {

/// Keys and values of committed positions, in pages of kPageSize shared by up to `num_slots`
/// sequences. Nothing that was merely drafted ever enters.
class KvCache {
 public:
  KvCache(Backend& backend, const ModelConfig& config, int num_slots, int num_pages,
          int max_positions);

  /// Bytes of one page over all layers, keys and values.
  static size_t page_bytes(const Backend& backend, const ModelConfig& config);
  static int pages_for(int positions) { return (positions + kPageSize - 1) / kPageSize; }

  const KvLayout& layout() const { return layout_; }
  size_t bytes() const { return keys_.bytes() + values_.bytes(); }
  int free_pages() const { return static_cast<int>(free_.size()); }

  /// Gives `slot` pages for its first `positions` positions; false, and no change, if too few are
  /// free.
  bool reserve(int slot, int positions);
  /// Takes all pages of `slot` back and forgets what it had committed.
  void release(int slot);

  int committed(int slot) const { return committed_[slot]; }
  const int32_t* pages(int slot) const { return tables_[slot].data(); }

  /// Makes room for `rows` queued rows, so that append() does not allocate.
  void reserve_commits(int rows) { pending_.reserve(rows); }
  /// Queues rows of the last forward pass, in order, as the next positions of `slot`.
  void append(int slot, std::span<const int32_t> rows);
  /// Copies all queued rows from the workspace.
  void commit(Backend& backend, const Workspace& workspace);

 private:
  Buffer keys_, values_;
  KvLayout layout_;
  std::vector<int32_t> free_;
  std::vector<std::vector<int32_t>> tables_;  // [slot][page of the sequence]
  std::vector<int> committed_;                // [slot]
  std::vector<CommitRow> pending_;
};

}  // namespace medusa
