#include "model/kv_cache.h"

#include <algorithm>

#include "backend/ops.h"
#include "base/check.h"

namespace medusa {
namespace {

PrefixIndex::PageTokens page_tokens(std::span<const int32_t> tokens, int page) {
  return tokens.subspan(static_cast<size_t>(page) * kPageSize).first<kPageSize>();
}

bool has_page(std::span<const int32_t> tokens, int page) {
  return tokens.size() >= (static_cast<size_t>(page) + 1) * kPageSize;
}

}  // namespace

DType KvCache::dtype_of(const Backend& backend, KvCacheType asked) {
  if (asked == KvCacheType::compute) return backend.compute_dtype();
  check(backend.supports_cache(DType::i8),
        "kv_cache_dtype: expected auto; int8 needs the CPU and bfloat16 arithmetic, found ",
        backend.name(), " with ", name(backend.compute_dtype()));
  return DType::i8;
}

KvCache::KvCache(Backend& backend, const ModelConfig& config, DType dtype, int num_slots,
                 int num_pages, int max_positions)
    : pool_(num_pages), index_(num_pages), slots_(num_slots) {
  layout_.dtype = dtype;
  layout_.num_layers = config.num_hidden_layers;
  layout_.num_pages = num_pages;
  layout_.num_kv_heads = config.num_key_value_heads;
  layout_.head_dim = config.head_dim;
  keys_ = backend.allocate(layout_.bytes_per_side());
  values_ = backend.allocate(layout_.bytes_per_side());
  layout_.keys = keys_.data();
  layout_.values = values_.data();
  for (Slot& slot : slots_) slot.table.reserve(pages_for(max_positions));
}

size_t KvCache::page_bytes(const ModelConfig& config, DType dtype) {
  const auto tile = static_cast<size_t>(kv_head_cols(dtype, config.head_dim)) * kPageSize;
  const size_t tiles = size_t{2} * config.num_hidden_layers * config.num_key_value_heads;
  return tiles * tile * block_bytes(dtype);
}

int32_t KvCache::take_page() {
  const int32_t page = pool_.next_idle();
  pool_.retain(page);
  index_.erase(page);
  return page;
}

bool KvCache::reserve(int slot, int positions) {
  auto& table = slots_[slot].table;
  const int wanted = pages_for(positions) - static_cast<int>(table.size());
  if (wanted > free_pages()) return false;
  for (int i = 0; i < wanted; ++i) table.push_back(take_page());
  return true;
}

void KvCache::drop_last_page(Slot& slot) {
  const int32_t page = slot.table.back();
  pool_.release(page, index_.holds(page));
  slot.table.pop_back();
}

void KvCache::trim(int slot, int positions) {
  while (held_pages(slot) > pages_for(positions)) drop_last_page(slots_[slot]);
}

// The last page first, so that a prefix outlives what follows it.
void KvCache::release(int slot) {
  Slot& from = slots_[slot];
  while (!from.table.empty()) drop_last_page(from);
  from.committed = from.published = 0;
  from.content = 0;
}

void KvCache::publish(int slot, std::span<const int32_t> tokens) {
  Slot& from = slots_[slot];
  const auto known = std::min<size_t>(tokens.size(), from.committed);
  for (; has_page(tokens.first(known), from.published); ++from.published) {
    int32_t& page = from.table[from.published];
    const auto held = page_tokens(tokens, from.published);
    const int32_t twin = index_.find(from.content, held);
    if (twin >= 0) {
      pool_.retain(twin);
      pool_.release(page, false);
      page = twin;
    } else {
      index_.insert(page, from.content, held);
    }
    from.content = index_.content(page);
  }
}

int KvCache::adopt(int slot, std::span<const int32_t> tokens) {
  Slot& to = slots_[slot];
  while (to.committed == to.published * kPageSize && has_page(tokens, to.published)) {
    const int32_t page = index_.find(to.content, page_tokens(tokens, to.published));
    if (page < 0) break;
    pool_.retain(page);
    if (static_cast<int>(to.table.size()) > to.published) {
      pool_.release(to.table[to.published], false);
      to.table[to.published] = page;
    } else {
      to.table.push_back(page);
    }
    ++to.published;
    to.committed += kPageSize;
    to.content = index_.content(page);
  }
  return to.committed;
}

bool KvCache::same_next_page(int slot, std::span<const int32_t> tokens, int other,
                             std::span<const int32_t> other_tokens) const {
  const Slot &a = slots_[slot], &b = slots_[other];
  if (a.published != b.published || a.content != b.content) return false;
  if (!has_page(tokens, a.published) || !has_page(other_tokens, a.published)) return false;
  return std::ranges::equal(page_tokens(tokens, a.published),
                            page_tokens(other_tokens, a.published));
}

void KvCache::offer(int slot, int32_t row, int32_t position) {
  pending_.push_back({row, slots_[slot].table[position / kPageSize], position});
}

void KvCache::commit(Backend& backend, const Workspace& workspace, Tensor kept) {
  ops::commit(backend, layout_, workspace.all_keys(), workspace.all_values(), pending_, kept);
  pending_.clear();
}

}  // namespace medusa
