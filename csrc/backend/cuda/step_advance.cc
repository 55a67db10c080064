#include "backend/cuda/step_advance.h"

#include "base/check.h"

namespace medusa::cuda {

void StepAdvance::lay_out(const NextStep& next, const RowBatch& batch) {
  rows_.clear();
  sequences_.clear();
  pages_.clear();
  stops_.clear();
  for (size_t i = 0; i < next.sequences.size(); ++i) {
    const SequenceRows& from = batch.sequences[i];
    const NextSequence& s = next.sequences[i];
    sequences_.push_back({from.first_row, from.num_rows, s.decision, from.committed, s.last_start,
                          static_cast<int32_t>(pages_.size()), static_cast<int32_t>(stops_.size()),
                          static_cast<int32_t>(s.stop_tokens.size()), 0});
    pages_.insert(pages_.end(), s.pages.begin(), s.pages.end());
    stops_.insert(stops_.end(), s.stop_tokens.begin(), s.stop_tokens.end());
    for (int row = from.first_row; row < from.first_row + from.num_rows; ++row) {
      const auto at = static_cast<size_t>(row);
      rows_.push_back(
          {static_cast<int32_t>(i), batch.positions[at] - from.committed, next.sources[at]});
    }
  }
}

void StepAdvance::offer(Queue& queue, const NextStep& next, const RowBatch& batch, AdvanceArgs a) {
  check(a.tokens[0] != nullptr && a.tokens[1] != nullptr && a.positions[0] != nullptr &&
            a.sequences != nullptr && a.draws != nullptr && a.targets != nullptr,
        "go_on: expected a whole step in the same replay()");
  const size_t input_bytes = queue.input_bytes();
  lay_out(next, batch);
  const auto put = [&]<class T>(const std::vector<T>& values) {
    return static_cast<T*>(queue.put(values.data(), values.size() * sizeof(T)));
  };
  const int32_t steps = 0;
  a.num_rows = static_cast<int>(rows_.size());
  a.num_sequences = static_cast<int>(sequences_.size());
  a.rows = put(rows_);
  a.next = put(sequences_);
  a.page_table = put(pages_);
  a.stops = put(stops_);
  a.steps = static_cast<int32_t*>(queue.put(&steps, sizeof steps));
  a.guesses = next.guesses.row<int32_t>(0);
  a.token_map = next.token_map.cols > 0 ? next.token_map.row<int32_t>(0) : nullptr;
  a.kept = next.decisions.kept.row<int32_t>(0);
  a.roots = next.decisions.roots.row<int32_t>(0);
  queue.go_on(a, input_bytes);
}

}  // namespace medusa::cuda
