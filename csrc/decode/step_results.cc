#include "decode/step_results.h"

#include <cstring>

namespace medusa {
namespace {

constexpr int64_t kStampSize = 2 * StepResults::kNumStamps;

void read_entry(PlanEntry& entry, const int32_t* kept, int32_t root, const RowBatch& batch) {
  entry.accepted_rows.clear();
  entry.path.clear();
  for (int row = entry.first_row; row < entry.first_row + entry.num_rows; ++row) {
    if (kept[row] == 0) continue;
    entry.accepted_rows.push_back(row);
    if (!entry.is_prefill() && row > entry.first_row) entry.path.push_back(batch.tokens[row]);
  }
  entry.next_root = root;
}

}  // namespace

StepResults::StepResults(Backend& backend, int max_rows, int max_num_seqs, int max_guesses)
    : store_(backend) {
  const int64_t decided = max_rows + 2 * int64_t{max_num_seqs};
  all_ = store_.add(DType::i32, 1, kStampSize + decided + max_guesses);
  decided_.reserve(static_cast<size_t>(decided));
  found_.reserve(static_cast<size_t>(all_.cols));
}

void StepResults::lay_out(int64_t rows, int64_t sequences, int64_t guesses, int64_t top_k) {
  const int64_t last = kStampSize + rows, roots = last + sequences, ids = roots + sequences;
  decisions_ = {piece(kStampSize, 1, rows), piece(last, 1, sequences), piece(roots, 1, sequences)};
  guesses_ = piece(ids, guesses, top_k);
}

void StepResults::upload_decisions(Backend& backend, StepPlan& plan) {
  const auto rows = static_cast<size_t>(decisions_.kept.cols);
  const auto sequences = static_cast<size_t>(decisions_.last.cols);
  decided_.assign(rows + 2 * sequences, 0);
  for (const PlanEntry& entry : plan) {
    const auto at = rows + static_cast<size_t>(entry.decision);
    for (const int32_t row : entry.accepted_rows) decided_[static_cast<size_t>(row)] = 1;
    decided_[at] = entry.accepted_rows.back();
    decided_[at + sequences] = entry.next_root;
  }
  Tensor all = decisions_.kept;
  all.cols = static_cast<int64_t>(decided_.size());
  backend.upload(all, decided_.data());
}

void StepResults::download(Backend& backend) {
  size_ = guesses_.row<int32_t>(guesses_.rows) - all_.row<int32_t>(0);
  landed_ = static_cast<const int32_t*>(backend.download(piece(0, 1, size_)));
}

void StepResults::read_decisions(StepPlan& plan, const RowBatch& batch) const {
  for (PlanEntry& entry : plan) {
    read_entry(entry, found(decisions_.kept), found(decisions_.roots)[entry.decision], batch);
  }
}

std::span<const int32_t> StepResults::read_guess(int64_t row) const {
  return {found(guesses_) + row * guesses_.cols, static_cast<size_t>(guesses_.cols)};
}

double StepResults::seconds(Stamp from, Stamp to) const {
  int64_t first, last;
  std::memcpy(&first, found(stamp_of(from)), sizeof first);
  std::memcpy(&last, found(stamp_of(to)), sizeof last);
  return static_cast<double>(last - first) * 1e-9;
}

}  // namespace medusa
