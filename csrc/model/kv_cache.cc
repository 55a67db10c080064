#include "model/kv_cache.h"

#include <algorithm>
#include <numeric>

#include "backend/ops.h"

namespace medusa {

KvCache::KvCache(Backend& backend, const ModelConfig& config, int num_slots, int num_pages,
                 int max_positions)
    : tables_(num_slots), committed_(num_slots, 0) {
  layout_.dtype = backend.compute_dtype();
  layout_.num_layers = config.num_hidden_layers;
  layout_.num_pages = num_pages;
  layout_.num_kv_heads = config.num_key_value_heads;
  layout_.head_dim = config.head_dim;
  keys_ = backend.allocate(layout_.bytes_per_side());
  values_ = backend.allocate(layout_.bytes_per_side());
  layout_.keys = keys_.data();
  layout_.values = values_.data();
  free_.resize(num_pages);
  std::iota(free_.rbegin(), free_.rend(), 0);
  for (auto& table : tables_) table.reserve(pages_for(max_positions));
}

size_t KvCache::page_bytes(const Backend& backend, const ModelConfig& config) {
  const size_t tile = static_cast<size_t>(config.head_dim) * kPageSize;
  const size_t tiles = size_t{2} * config.num_hidden_layers * config.num_key_value_heads;
  return tiles * tile * block_bytes(backend.compute_dtype());
}

bool KvCache::reserve(int slot, int positions) {
  auto& table = tables_[slot];
  const int wanted = pages_for(positions) - static_cast<int>(table.size());
  if (wanted > free_pages()) return false;
  for (int i = 0; i < wanted; ++i) {
    table.push_back(free_.back());
    free_.pop_back();
  }
  return true;
}

void KvCache::release(int slot) {
  auto& table = tables_[slot];
  free_.insert(free_.end(), table.rbegin(), table.rend());
  table.clear();
  committed_[slot] = 0;
}

void KvCache::append(int slot, std::span<const int32_t> rows) {
  for (const int32_t row : rows) {
    const int32_t position = committed_[slot]++;
    pending_.push_back({row, tables_[slot][position / kPageSize], position});
  }
}

void KvCache::commit(Backend& backend, const Workspace& workspace) {
  ops::commit(backend, layout_, workspace.all_keys(), workspace.all_values(), pending_);
  pending_.clear();
}

}  // namespace medusa
