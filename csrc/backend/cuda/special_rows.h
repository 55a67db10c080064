#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"

namespace medusa::cuda {

/// Rows of a call that the CPU's back end answers: those whose rules, filters or log-probabilities
/// look at a whole row of logits in ways that no kernel has. Which rows are special depends on each
/// row's own parameters alone.
class SpecialRows {
 public:
  void clear();
  /// Row `index` of the call, about row `logits_row`. In rising order of index.
  void add(size_t index, int64_t logits_row);
  bool holds(size_t index) const;
  /// Rows of the logits, to be brought to the host in this order.
  const std::vector<int32_t>& logits_rows() const { return logits_rows_; }

  // `logits`: those rows, which the host can read.
  void sample(Backend& host, std::span<int32_t> ids, Tensor logits,
              std::span<const SampleRow> rows);
  void logprobs(Backend& host, Tensor logits, std::span<const LogprobRow> rows);
  void posterior(Backend& host, Tensor logits, std::span<const PosteriorRow> rows);

 private:
  std::vector<size_t> indices_;
  std::vector<int32_t> logits_rows_;
  std::vector<SampleRow> samples_;
  std::vector<LogprobRow> logprobs_;
  std::vector<PosteriorRow> posteriors_;
  std::vector<int32_t> ids_;
};

}  // namespace medusa::cuda
