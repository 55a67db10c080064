#include "train/joint_batch.h"

#include <algorithm>

#include "base/check.h"

namespace medusa {
namespace {

void check_ids(const char* what, std::span<const int32_t> ids, int32_t lowest, int64_t end) {
  for (size_t i = 0; i < ids.size(); ++i) {
    check(ids[i] >= lowest && ids[i] < end, what, " ", i, ": expected ", lowest, " to ", end - 1,
          ", found ", ids[i]);
  }
}

}  // namespace

PaddedBatch::PaddedBatch(const TokenBatch& batch, const BatchLimits& limits)
    : batch_(batch),
      num_heads_(limits.num_heads),
      tokens_(batch.tokens.begin(), batch.tokens.end()),
      starts_{0} {
  const auto rows = static_cast<int64_t>(tokens_.size());
  check(rows >= 1 && rows <= limits.max_rows, "tokens: expected 1 to ", limits.max_rows,
        " of a batch, found ", rows);
  for (const int32_t length : batch.lengths) {
    check(length >= 1 && length <= rows - starts_.back(), "lengths: expected documents of ", rows,
          " tokens in all, found one of ", length, " at token ", starts_.back());
    starts_.push_back(starts_.back() + length);
  }
  check(starts_.back() == rows, "lengths: expected a sum of ", rows, ", found ", starts_.back());
  check(batch.lm_targets.size() == tokens_.size(), "lm_targets: expected ", rows, ", found ",
        batch.lm_targets.size());
  check(batch.head_targets.size() == tokens_.size() * static_cast<size_t>(num_heads_),
        "head_targets: expected ", rows, " · ", num_heads_, ", found ", batch.head_targets.size());
  check_ids("token", batch.tokens, 0, limits.vocab);
  check_ids("lm_target", batch.lm_targets, -1, limits.vocab);
  check_ids("head_target", batch.head_targets, -1, limits.draft_vocab);
  find_active();
  pad();
}

void PaddedBatch::pad() {
  tokens_.resize((tokens_.size() + 31) / 32 * 32);
  if (starts_.back() < static_cast<int32_t>(tokens_.size())) {
    starts_.push_back(static_cast<int32_t>(tokens_.size()));
  }
  for (size_t i = 0; i + 1 < starts_.size(); ++i) {
    for (int32_t p = 0; p < starts_[i + 1] - starts_[i]; ++p) positions_.push_back(p);
  }
}

void PaddedBatch::find_active() {
  for (int32_t row = 0; row < static_cast<int32_t>(batch_.tokens.size()); ++row) {
    bool any = lm_target(row) >= 0;
    for (int64_t head = 0; head < num_heads_; ++head) any |= head_target(row, head) >= 0;
    if (any) active_.push_back(row);
  }
}

int32_t PaddedBatch::root(int32_t row) const {
  const bool last = std::binary_search(starts_.begin(), starts_.end(), row + 1);
  return last ? 0 : tokens_[static_cast<size_t>(row) + 1];
}

}  // namespace medusa
