#include "backend/cuda/special_rows.h"

#include <algorithm>

namespace medusa::cuda {

void SpecialRows::clear() {
  indices_.clear();
  logits_rows_.clear();
}

void SpecialRows::add(size_t index, int64_t logits_row) {
  indices_.push_back(index);
  logits_rows_.push_back(static_cast<int32_t>(logits_row));
}

bool SpecialRows::holds(size_t index) const {
  return std::binary_search(indices_.begin(), indices_.end(), index);
}

void SpecialRows::sample(Backend& host, std::span<int32_t> ids, Tensor logits,
                         std::span<const SampleRow> rows) {
  samples_.clear();
  for (size_t i = 0; i < indices_.size(); ++i) {
    samples_.push_back(rows[indices_[i]]);
    samples_.back().row = static_cast<int64_t>(i);
  }
  ids_.resize(indices_.size());
  host.sample(ids_, logits, samples_);
  for (size_t i = 0; i < indices_.size(); ++i) ids[indices_[i]] = ids_[i];
}

void SpecialRows::logprobs(Backend& host, Tensor logits, std::span<const LogprobRow> rows) {
  logprobs_.clear();
  for (size_t i = 0; i < indices_.size(); ++i) {
    logprobs_.push_back(rows[indices_[i]]);
    logprobs_.back().row = static_cast<int64_t>(i);
  }
  host.logprobs(logits, logprobs_);
}

void SpecialRows::posterior(Backend& host, Tensor logits, std::span<const PosteriorRow> rows) {
  posteriors_.clear();
  for (size_t i = 0; i < indices_.size(); ++i) {
    posteriors_.push_back(rows[indices_[i]]);
    posteriors_.back().draw.row = static_cast<int64_t>(i);
  }
  host.posterior(logits, posteriors_);
}

}  // namespace medusa::cuda
