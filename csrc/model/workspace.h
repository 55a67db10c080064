#pragma once

#include "backend/backend.h"
#include "medusa/config.h"
#include "model/tensor_store.h"
#include "tensor/tensor.h"

namespace medusa {

/// All activations of one forward pass, allocated once for the most rows it may have. C is the
/// compute type. Fresh keys and values of every layer stay here until they are committed.
class Workspace {
 public:
  /// `cache`: the type of the key/value cache.
  Workspace(Backend& backend, const ModelConfig& config, DType cache, int max_rows,
            int max_logits_rows);

  int max_rows() const { return max_rows_; }
  int max_logits_rows() const { return static_cast<int>(logits_.rows); }
  size_t bytes() const { return store_.bytes(); }

  Tensor residual(int64_t rows) const { return residual_.slice(0, rows); }  // f32 (rows, hidden)
  Tensor normed(int64_t rows) const { return normed_.slice(0, rows); }      // C (rows, hidden)
  Tensor qkv(int64_t rows) const { return qkv_.slice(0, rows); }            // f32
  Tensor q(int64_t rows) const { return q_.slice(0, rows); }                // f32
  Tensor attended(int64_t rows) const { return attended_.slice(0, rows); }  // C
  Tensor mlp(int64_t rows) const { return mlp_.slice(0, rows); }            // C
  Tensor hidden(int64_t rows) const { return hidden_.slice(0, rows); }      // C, after final norm
  Tensor picked(int64_t rows) const { return picked_.slice(0, rows); }      // C, rows of hidden
  Tensor picks(int64_t rows) const { return {picks_.data, DType::i32, 1, rows}; }  // their numbers
  Tensor logits(int64_t rows) const { return logits_.slice(0, rows); }  // f32 (rows, vocab)

  /// Fresh keys of one layer: (rows, KvLayout::row_cols()). Layers lie max_rows apart.
  Tensor keys(int layer, int64_t rows) const { return keys_.slice(layer * max_rows_, rows); }
  Tensor values(int layer, int64_t rows) const { return values_.slice(layer * max_rows_, rows); }
  /// All layers: (layers · max_rows, KvLayout::row_cols()).
  Tensor all_keys() const { return keys_; }
  Tensor all_values() const { return values_; }

 private:
  int max_rows_;
  TensorStore store_;
  Tensor residual_, normed_, qkv_, q_, attended_, mlp_, hidden_, picked_, picks_, logits_, keys_,
      values_;
};

}  // namespace medusa
