#include "model/prefix_index.h"

#include <algorithm>
#include <bit>

namespace medusa {

// SplitMix64's finaliser over a running sum.
uint64_t PrefixIndex::hash_page(Content before, PageTokens tokens) {
  const auto mix = [](uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  };
  uint64_t hash = mix(static_cast<uint64_t>(before) + 0x9e3779b97f4a7c15u);
  for (const int32_t token : tokens) hash = mix(hash + static_cast<uint32_t>(token) + 1);
  return hash;
}

PrefixIndex::PrefixIndex(int num_pages, Hash hash)
    : hash_(hash),
      entries_(num_pages),
      table_(std::bit_ceil(static_cast<size_t>(num_pages) * 2 + 2), -1) {}

size_t PrefixIndex::home(const Entry& entry) const {
  return hash_(entry.before, PageTokens(entry.tokens)) & (table_.size() - 1);
}

int32_t PrefixIndex::find(Content before, PageTokens tokens) const {
  for (size_t at = hash_(before, tokens) & (table_.size() - 1); table_[at] >= 0; at = after(at)) {
    const Entry& entry = entries_[table_[at]];
    if (entry.before == before && std::equal(tokens.begin(), tokens.end(), entry.tokens.begin())) {
      return table_[at];
    }
  }
  return -1;
}

PrefixIndex::Content PrefixIndex::insert(int32_t page, Content before, PageTokens tokens) {
  Entry& entry = entries_[page];
  entry.content = ++last_content_;
  entry.before = before;
  std::copy(tokens.begin(), tokens.end(), entry.tokens.begin());
  size_t at = home(entry);
  while (table_[at] >= 0) at = after(at);
  table_[at] = page;
  return entry.content;
}

void PrefixIndex::erase(int32_t page) {
  if (!holds(page)) return;
  size_t at = home(entries_[page]);
  while (table_[at] != page) at = after(at);
  entries_[page].content = 0;
  close_gap(at);
}

// Knuth, volume 3, algorithm 6.4R: whatever stands behind the gap moves up, unless its home lies
// between the gap and its place.
void PrefixIndex::close_gap(size_t gap) {
  table_[gap] = -1;
  for (size_t at = after(gap); table_[at] >= 0; at = after(at)) {
    const size_t from = home(entries_[table_[at]]);
    const bool stays = gap <= at ? gap < from && from <= at : gap < from || from <= at;
    if (stays) continue;
    table_[gap] = table_[at];
    table_[at] = -1;
    gap = at;
  }
}

}  // namespace medusa
