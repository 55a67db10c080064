#include "backend/cuda/attention_plan.h"

#include <algorithm>
#include <bit>
#include <span>

#include "backend/kv_layout.h"
#include "base/check.h"

namespace medusa::cuda {

static_assert(kAttentionChunk == kPageSize);

namespace {

int page_count(const SequenceRows& sequence) {
  return (sequence.committed + kPageSize - 1) / kPageSize;
}

}  // namespace

void AttentionPlan::lay_out(const RowBatch& batch, int group, int window) {
  check<DeviceError>(group <= kTileQueries, "tree_attention: expected at most ", kTileQueries,
                     " heads for one key/value head on a GPU, found ", group);
  if (knows(batch, group, window)) return;
  remember(batch, group, window);
  sequences_.clear();
  tiles_.clear();
  pages_.clear();
  num_splits_ = 1;
  for (const SequenceRows& sequence : batch.sequences) {
    if (sequence.num_rows == 0) continue;
    add_sequence(sequence);
    add_tiles(batch, sequence, kTileQueries / group, window);
  }
  num_splits_ = static_cast<int>(std::bit_ceil(static_cast<unsigned>(num_splits_)));
  add_paths(batch);
}

bool AttentionPlan::knows(const RowBatch& batch, int group, int window) const {
  if (group != group_ || window != window_) return false;
  if (batch.positions != positions_ || batch.parents != parents_) return false;
  auto known = sequences_.begin();
  for (const SequenceRows& s : batch.sequences) {
    if (s.num_rows == 0) continue;
    if (known == sequences_.end()) return false;
    const auto pages = std::span(pages_).subspan(static_cast<size_t>(known->first_page));
    const auto count = static_cast<size_t>(page_count(s));
    if (known->first_row != s.first_row || known->committed != s.committed ||
        known->chain != static_cast<int32_t>(s.chain) || pages.size() < count ||
        !std::equal(s.pages, s.pages + count, pages.begin())) {
      return false;
    }
    ++known;
  }
  return known == sequences_.end();
}

void AttentionPlan::remember(const RowBatch& batch, int group, int window) {
  positions_ = batch.positions;
  parents_ = batch.parents;
  group_ = group;
  window_ = window;
}

void AttentionPlan::add_sequence(const SequenceRows& sequence) {
  sequences_.push_back({sequence.first_row, sequence.committed, static_cast<int32_t>(pages_.size()),
                        sequence.chain ? 1 : 0});
  pages_.insert(pages_.end(), sequence.pages, sequence.pages + page_count(sequence));
}

void AttentionPlan::add_tiles(const RowBatch& batch, const SequenceRows& sequence,
                              int rows_per_tile, int window) {
  const int end = sequence.first_row + sequence.num_rows;
  for (int first = sequence.first_row; first < end; first += rows_per_tile) {
    const int rows = std::min(rows_per_tile, end - first);
    const auto begin = batch.positions.begin() + first;
    const auto [least, most] = std::minmax_element(begin, begin + rows);
    const int lowest = window > 0 ? std::max(0, *least - window + 1) : 0;
    tiles_.push_back({static_cast<int32_t>(sequences_.size()) - 1, first, rows,
                      lowest / kAttentionChunk, *most / kAttentionChunk, *most});
    num_splits_ = std::max(num_splits_, attention_splits(tiles_.back()));
  }
}

void AttentionPlan::add_paths(const RowBatch& batch) {
  path_stride_ = 1;
  for (const SequenceRows& s : batch.sequences) {
    for (int r = s.first_row; !s.chain && r < s.first_row + s.num_rows; ++r) {
      path_stride_ =
          std::max(path_stride_, batch.positions[static_cast<size_t>(r)] - s.committed + 1);
    }
  }
  paths_.assign(batch.positions.size() * static_cast<size_t>(path_stride_), -1);
  for (const SequenceRows& s : batch.sequences) {
    for (int r = s.first_row; !s.chain && r < s.first_row + s.num_rows; ++r) {
      int32_t* path = paths_.data() + static_cast<size_t>(r) * path_stride_;
      for (int at = r; at >= 0; at = batch.parents[static_cast<size_t>(at)]) {
        path[batch.positions[static_cast<size_t>(at)] - s.committed] = at;
      }
    }
  }
}

}  // namespace medusa::cuda
