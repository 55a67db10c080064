#pragma once

#include <cstdint>

#include "tensor/buffer.h"
#include "tensor/tensor.h"

namespace medusa {

/// Positions of one page, and of one attention tile: tiles start at multiples of it.
inline constexpr int kPageSize = 64;

constexpr int64_t kv_head_cols(DType dtype, int head_dim) {
  return head_dim + (dtype == DType::i8 ? int64_t{sizeof(float)} : 0);
}

/// Where keys and values lie. A page holds, per layer and key/value head, a key tile and a value
/// tile (kPageSize, head_dim). Only the back end reads them: on the CPU the key tile is
/// (head_dim, kPageSize), so that 16 neighbouring positions of one key channel are one vector, and
/// the scales of 8-bit codes come behind a tile; on a GPU both are alike. Views memory that the
/// cache owns.
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

  /// Elements of one head in a row of fresh keys or values: head_dim; of 8-bit codes (i8) their
  /// scale, an f32, lies behind them.
  int64_t head_cols() const { return kv_head_cols(dtype, head_dim); }
  int64_t row_cols() const { return num_kv_heads * head_cols(); }
  int64_t tile_elements() const { return head_cols() * kPageSize; }
  size_t bytes_per_side() const {
    return static_cast<size_t>(num_layers) * num_pages * num_kv_heads * tile_elements() *
           block_bytes(dtype);
  }
  // Of the CPU's layout.
  int64_t page_elements() const { return int64_t{num_layers} * num_kv_heads * tile_elements(); }
  void* key_tile(int layer, int page, int head) const {
    return static_cast<char*>(keys) + tile_offset(layer, page, head);
  }
  void* value_tile(int layer, int page, int head) const {
    return static_cast<char*>(values) + tile_offset(layer, page, head);
  }

 private:
  int64_t tile_offset(int layer, int page, int head) const {
    const int64_t index = (int64_t{page} * num_layers + layer) * num_kv_heads + head;
    return index * tile_elements() * static_cast<int64_t>(block_bytes(dtype));
  }
};

}  // namespace medusa
