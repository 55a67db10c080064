#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "medusa/model.h"
#include "model/llama.h"
#include "model/tensor_store.h"

namespace medusa {

class MedusaHeads;

/// Buffers of one evaluation of the first `num_heads` heads, allocated once.
class HeadsWorkspace {
 public:
  HeadsWorkspace(Backend& backend, const MedusaHeads& heads, int64_t max_rows, int num_heads,
                 int top_k);

  size_t bytes() const { return store_.bytes(); }

 private:
  friend class MedusaHeads;
  TensorStore store_;
  Tensor grounded_;              // C (rows, 2 · hidden), grounded heads only
  Tensor state_, next_;          // C (heads · rows, hidden)
  Tensor values_;                // f32 (heads · rows, top_k)
  Tensor roots_, ids_;           // i32 (1, rows), (heads · rows, top_k), of guess()
  std::vector<int32_t> tokens_;  // as ids_
};

/// Medusa heads: L ResBlocks x + silu(W x + b), then a projection to the draft vocabulary
/// (Medusa, section 2.1.1). V1 owns a projection per head, V2 uses the backbone's lm_head. The
/// first ResBlock of grounded heads sees the root token too, x + silu(W x + U e + b) with its
/// embedding e: a first step towards Hydra (Ankner et al. 2024), with the tree still cartesian.
class MedusaHeads {
 public:
  MedusaHeads(Backend& backend, const Llama& llama, const Heads::Source& source);

  /// The best ids of the first `num_heads` heads for every row of `hidden` (C, post norm), into
  /// `ids`: i32 (heads · rows, top_k), best first, of the draft vocabulary. `roots`, i32 (1, rows):
  /// the token that follows each row, which grounded heads look at.
  void forward(Backend& backend, Tensor hidden, Tensor roots, int num_heads,
               HeadsWorkspace& workspace, Tensor ids) const;
  /// The same from and for the host: tokens, valid until the next call.
  std::span<const int32_t> guess(Backend& backend, Tensor hidden, std::span<const int32_t> roots,
                                 int num_heads, HeadsWorkspace& workspace) const;
  int32_t token(int32_t id) const { return token_map_.empty() ? id : token_map_[id]; }
  /// The same for a back end: i32 (1, draft vocab), empty where ids are tokens.
  Tensor device_token_map() const {
    return {device_token_map_.data(), DType::i32, 1, static_cast<int64_t>(token_map_.size())};
  }

  int num_heads() const { return static_cast<int>(residual_.size()); }
  int num_layers() const { return static_cast<int>(residual_[0].size()); }
  int version() const { return projection_.empty() ? 2 : 1; }
  bool grounded() const { return embedding_ != nullptr; }
  int64_t hidden_size() const { return residual_[0][0].out_features; }
  int64_t draft_vocab() const { return draft_vocab_; }
  size_t weight_bytes() const;

 private:
  void check_token_map(int vocab_size) const;
  void place_token_map(Backend& backend);
  void load_residual(Backend& backend, const Heads::Source& source, int64_t hidden);
  void load_projection(Backend& backend, const Llama& llama, const Heads::Source& source);
  Tensor residual_blocks(Backend& backend, Tensor input, int num_heads, HeadsWorkspace& ws) const;
  std::span<const Weight> projections(int num_heads) const;

  std::vector<std::vector<Weight>> residual_;  // [head][layer] (hidden, hidden) and bias; layer 0
                                               // of grounded heads [W U] (hidden, 2 · hidden)
  std::vector<Weight> projection_;             // V1: [head] (draft vocab, hidden)
  Weight trimmed_lm_head_;                     // V2 with a token map: those rows of the lm_head
  const Weight* lm_head_ = nullptr;            // the backbone's
  const Weight* embedding_ = nullptr;          // the backbone's, grounded heads only
  std::vector<int32_t> token_map_;             // draft id to token id; empty: identity
  Buffer device_token_map_;
  int64_t draft_vocab_ = 0;
};

}  // namespace medusa
