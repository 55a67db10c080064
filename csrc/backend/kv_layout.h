#pragma once

#include <cstdint>

#include "tensor/buffer.h"
#include "tensor/tensor.h"

namespace medusa {

/// Positions of one page, and of one attention tile: tiles start at multiples of it.
inline constexpr int kPageSize = 64;

/// Where keys and values lie. A page holds, per layer and key/value head, a key tile and a value
/// tile (kPageSize, head_dim). Only the back end reads them: on the CPU the key tile is
/// (head_dim, kPageSize), so that 16 neighbouring positions of one key channel are one vector; on a
/// GPU both are alike. Views memory that the cache owns.
struct KvLayout {
  // On the CPU [page][layer][kv head][tile]: a sequence's first pages touch few of the system's
  // huge pages. On a GPU [layer][page][kv head][tile].
  void* keys = nullptr;
  void* values = nullptr;
  DType dtype = DType::bf16;
  int num_layers = 0;
  int num_pages = 0;
  int num_kv_heads = 0;
  int head_dim = 0;

  int64_t tile_elements() const { return int64_t{head_dim} * kPageSize; }
  size_t bytes_per_side() const {
    return static_cast<size_t>(num_layers) * num_pages * num_kv_heads * tile_elements() *
           block_bytes(dtype);
  }
  // Of the CPU's layout.
  int64_t page_elements() const { return int64_t{num_layers} * num_kv_heads * tile_elements(); }
  template <class T>
  T* key_tile(int layer, int page, int head) const {
    return static_cast<T*>(keys) + tile_index(layer, page, head) * tile_elements();
  }
  template <class T>
  T* value_tile(int layer, int page, int head) const {
    return static_cast<T*>(values) + tile_index(layer, page, head) * tile_elements();
  }

 private:
  int64_t tile_index(int layer, int page, int head) const {
    return (int64_t{page} * num_layers + layer) * num_kv_heads + head;
  }
};

}  // namespace medusa
