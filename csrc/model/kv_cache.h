#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "model/page_pool.h"
#include "model/prefix_index.h"
#include "model/workspace.h"

namespace medusa {

/// Keys and values of committed positions, in pages of kPageSize for up to `num_slots` sequences.
/// Nothing that was merely drafted ever enters. Full pages that were published are shared by
/// sequences that begin with the same tokens, and stay until their room is needed; nobody writes to
/// them again.
class KvCache {
 public:
  /// `dtype`: one that the back end supports.
  KvCache(Backend& backend, const ModelConfig& config, DType dtype, int num_slots, int num_pages,
          int max_positions);

  /// What `asked` is on a back end. Throws InvalidArgument where it cannot be had.
  static DType dtype_of(const Backend& backend, KvCacheType asked);
  /// Bytes of one page over all layers, keys and values.
  static size_t page_bytes(const ModelConfig& config, DType dtype);
  static int pages_for(int positions) { return (positions + kPageSize - 1) / kPageSize; }

  const KvLayout& layout() const { return layout_; }
  size_t bytes() const { return keys_.bytes() + values_.bytes(); }
  int num_pages() const { return pool_.num_pages(); }
  int free_pages() const {
    return pool_.num_idle();
  }  // those that only hold what may be adopted too

  /// Gives `slot` pages for its first `positions` positions; false, and no change, if too few are
  /// free.
  bool reserve(int slot, int positions);
  int held_pages(int slot) const { return static_cast<int>(slots_[slot].table.size()); }
  /// Takes back the pages that `slot` has for positions from `positions` on, none of them
  /// committed.
  void trim(int slot, int positions);
  /// Takes all pages of `slot` back and forgets what it had committed.
  void release(int slot);

  int committed(int slot) const { return slots_[slot].committed; }
  std::span<const int32_t> held(int slot) const { return slots_[slot].table; }
  const int32_t* pages(int slot) const { return slots_[slot].table.data(); }

  /// Lets others adopt the full pages of `slot`; `tokens` are the sequence's. A page that somebody
  /// has published meanwhile takes the place of the slot's own.
  void publish(int slot, std::span<const int32_t> tokens);
  /// Takes over pages that were published for the same tokens, from the first position that `slot`
  /// has not committed, as many as lie within `tokens`. Returns the positions committed now.
  int adopt(int slot, std::span<const int32_t> tokens);
  /// Whether both slots have published the same pages and go on with the same one.
  bool same_next_page(int slot, std::span<const int32_t> tokens, int other,
                      std::span<const int32_t> other_tokens) const;

  /// Makes room for `rows` queued rows, so that offer() does not allocate.
  void reserve_commits(int rows) { pending_.reserve(rows); }
  /// Queues row `row` of the last forward pass, which `slot` may keep at `position`.
  void offer(int slot, int32_t row, int32_t position);
  /// Copies those of the queued rows that are kept (see Decisions; without a tensor all) from the
  /// workspace.
  void commit(Backend& backend, const Workspace& workspace, Tensor kept = {});
  /// Counts positions that were kept as committed.
  void advance(int slot, int positions) { slots_[slot].committed += positions; }

 private:
  struct Slot {
    std::vector<int32_t> table;  // [page of the sequence]
    int committed = 0;
    int published = 0;                 // pages
    PrefixIndex::Content content = 0;  // of the published pages
  };
  int32_t take_page();
  void drop_last_page(Slot& slot);

  Buffer keys_, values_;
  KvLayout layout_;
  PagePool pool_;
  PrefixIndex index_;
  std::vector<Slot> slots_;
  std::vector<CommitRow> pending_;
};

}  // namespace medusa
