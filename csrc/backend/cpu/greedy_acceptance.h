#pragma once

#include <span>

#include "backend/backend.h"
#include "backend/cpu/products.h"
#include "backend/cpu/scratch.h"

namespace medusa::cpu {

/// Exact acceptance of greedy sequences from the likeliest ids of the lm_head's product, without
/// logits in memory. One call at a time.
class GreedyAcceptance {
 public:
  /// Backend::accept: false where somebody looks at logits (draws, rules, the typical rule): to
  /// draw at every node is dear here, and who walks draws at the nodes of accepted paths alone.
  bool accept(Products& products, const Decisions& out, const LogitsProduct& product,
              const RowBatch& batch, std::span<const AcceptSequence> sequences);

 private:
  Scratch values_, ids_;  // f32, i32 (logits rows)
};

}  // namespace medusa::cpu
