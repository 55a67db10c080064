#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "backend/kv_layout.h"

namespace medusa {

/// Finds full pages by the tokens they were computed from. A page's key is its own tokens and the
/// number of the content before it; numbers are never given twice, so that equal keys mean equal
/// tokens from the first on, whatever their hashes. Open addressing, fixed in size.
class PrefixIndex {
 public:
  /// What all pages of a sequence up to some page hold; 0: no page yet.
  using Content = int64_t;
  using PageTokens = std::span<const int32_t, kPageSize>;
  using Hash = uint64_t (*)(Content before, PageTokens tokens);

  static uint64_t hash_page(Content before, PageTokens tokens);
  explicit PrefixIndex(int num_pages, Hash hash = &hash_page);

  /// The page that holds `tokens` after `before`, or -1.
  int32_t find(Content before, PageTokens tokens) const;
  /// Enters a page that is in the index neither by number nor by key; returns its content.
  Content insert(int32_t page, Content before, PageTokens tokens);
  void erase(int32_t page);  // if it is there
  bool holds(int32_t page) const { return entries_[page].content != 0; }
  Content content(int32_t page) const { return entries_[page].content; }

 private:
  struct Entry {
    Content content = 0;  // 0: not in the index
    Content before = 0;
    std::array<int32_t, kPageSize> tokens{};
  };
  size_t home(const Entry& entry) const;
  size_t after(size_t place) const { return (place + 1) & (table_.size() - 1); }
  void close_gap(size_t gap);

  Hash hash_;
  std::vector<Entry> entries_;  // [page]
  std::vector<int32_t> table_;  // page or -1; linear probing, at most half full
  Content last_content_ = 0;
};

}  // namespace medusa
