#include "decode/logprobs.h"

#include <algorithm>

#include "backend/ops.h"

namespace medusa {
namespace {

// Room for one more token's entries at the end of `all`.
std::span<TokenLogprob> extend(std::vector<TokenLogprob>& all, size_t width) {
  all.resize(all.size() + width);
  return std::span(all).last(width);
}

}  // namespace

void reserve_logprobs(Sequence& sequence, int max_accepted) {
  const auto answer = static_cast<size_t>(sequence.max_size - sequence.prompt_size + max_accepted);
  sequence.logprobs.reserve(answer * sequence.logprobs_width());
  const auto prompt = static_cast<size_t>(sequence.prompt_size - 1);
  sequence.prompt_logprobs.reserve(prompt * sequence.prompt_logprobs_width());
}

LogprobRecorder::LogprobRecorder(int max_rows) : max_rows_(static_cast<size_t>(max_rows)) {
  batch_rows_.reserve(max_rows_);
  rows_.reserve(max_rows_);
}

void LogprobRecorder::record_prompts(Backend& backend, const Llama& llama, StepPlan& plan,
                                     int64_t batch_rows, Workspace& workspace) {
  for (const PlanEntry& entry : plan) {
    if (!entry.is_prefill() || entry.sequence->prompt_logprobs_width() == 0) continue;
    record_chunk(backend, llama, entry, batch_rows, workspace);
  }
}

// Row i of the chunk tells of token committed + i + 1. What is known already is not told again.
void LogprobRecorder::record_chunk(Backend& backend, const Llama& llama, const PlanEntry& entry,
                                   int64_t batch_rows, Workspace& workspace) {
  Sequence& sequence = *entry.sequence;
  const size_t width = sequence.prompt_logprobs_width();
  const int known = static_cast<int>(sequence.prompt_logprobs.size() / width);
  const int last = std::min(entry.committed + entry.num_rows, sequence.prompt_size - 1);
  for (int position = std::max(known, entry.committed); position < last;) {
    batch_rows_.clear();
    rows_.clear();
    for (; position < last && rows_.size() < max_rows_; ++position) {
      batch_rows_.push_back(entry.first_row + position - entry.committed);
      rows_.push_back({static_cast<int64_t>(rows_.size()), sequence.tokens[position + 1],
                       extend(sequence.prompt_logprobs, width)});
    }
    llama.logits(backend, batch_rows_, batch_rows, workspace);
    ops::logprobs(backend, workspace.logits(static_cast<int64_t>(rows_.size())), rows_);
  }
}

bool LogprobRecorder::wants(const StepPlan& plan) {
  return std::ranges::any_of(plan, [](const PlanEntry& entry) {
    return entry.sequence->logprobs_width() > 0 && entry.num_logits_rows > 0;
  });
}

void LogprobRecorder::record_accepted(Backend& backend, StepPlan& plan, const RowBatch& batch,
                                      Tensor logits) {
  rows_.clear();
  for (const PlanEntry& entry : plan) {
    const size_t width = entry.sequence->logprobs_width();
    if (width == 0 || entry.num_logits_rows == 0) continue;
    const std::vector<int32_t>& accepted = entry.accepted_rows;
    for (size_t i = entry.is_prefill() ? accepted.size() - 1 : 0; i < accepted.size(); ++i) {
      const bool last = i + 1 == accepted.size();
      rows_.push_back({entry.logits_row(accepted[i]),
                       last ? entry.next_root : batch.tokens[accepted[i + 1]],
                       extend(entry.sequence->logprobs, width)});
    }
  }
  if (!rows_.empty()) ops::logprobs(backend, logits, rows_);
}

}  // namespace medusa
