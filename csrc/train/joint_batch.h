#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backbone_train_backend.h"
#include "medusa/joint_trainer.h"

namespace medusa {

/// Sizes that a batch must fit.
struct BatchLimits {
  int64_t max_rows, vocab, draft_vocab, num_heads;
};

/// A TokenBatch whose rows are padded to a multiple of 32 by a document without targets.
class PaddedBatch {
 public:
  /// Throws InvalidArgument naming what is out of range.
  PaddedBatch(const TokenBatch& batch, const BatchLimits& limits);

  int64_t rows() const { return static_cast<int64_t>(tokens_.size()); }  // padded
  std::span<const int32_t> tokens() const { return tokens_; }
  Documents documents() const { return {starts_, positions_}; }
  /// Rows that have a target.
  std::span<const int32_t> active() const { return active_; }
  int32_t lm_target(int32_t row) const { return batch_.lm_targets[static_cast<size_t>(row)]; }
  int32_t head_target(int32_t row, int64_t head) const {
    return batch_.head_targets[static_cast<size_t>(row * num_heads_ + head)];
  }
  /// The token after a row, or 0 at the end of its document.
  int32_t root(int32_t row) const;

 private:
  void pad();
  void find_active();

  TokenBatch batch_;
  int64_t num_heads_;
  std::vector<int32_t> tokens_, starts_, positions_, active_;
};

}  // namespace medusa
