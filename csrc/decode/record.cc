#include "decode/record.h"

#include <algorithm>
#include <utility>

namespace medusa {
namespace {

void append(Sequence& sequence, int32_t token) {
  const auto& stops = sequence.params.stop_token_ids;
  sequence.tokens.push_back(token);
  if (std::find(stops.begin(), stops.end(), token) != stops.end()) {
    sequence.stop_token = token;
    sequence.finish_reason = FinishReason::stop;
  } else if (sequence.size() == sequence.max_size) {
    sequence.finish_reason = FinishReason::length;
  }
}

// Drafted tokens of the accepted path: its rows but the root's.
int append_accepted(const PlanEntry& entry, const RowBatch& batch) {
  if (entry.is_prefill()) return 0;
  Sequence& sequence = *entry.sequence;
  int kept = 0;
  for (size_t i = 1; i < entry.accepted_rows.size() && !sequence.finished(); ++i, ++kept) {
    append(sequence, batch.tokens[entry.accepted_rows[i]]);
  }
  return kept;
}

// A step that computes an answer again after a preemption yields its token as a plain one does.
void count_step(const PlanEntry& entry, int kept, Metrics& metrics) {
  ++metrics.num_steps;
  if (entry.is_prefill() || entry.tree->size() == 1) return;
  ++metrics.num_drafts;
  metrics.num_draft_tokens += entry.tree->size() - 1;
  metrics.num_accepted_tokens += kept;
  const size_t num_ranks = metrics.rank_histogram.size() / metrics.accepted_per_position.size();
  for (int depth = 0; depth < kept; ++depth) {
    const int node = entry.accepted_rows[depth + 1] - entry.first_row;
    ++metrics.accepted_per_position[depth];
    ++metrics.rank_histogram[depth * num_ranks + entry.tree->ranks()[node]];
  }
}

void add_pass(const StepTimes& times, Metrics& metrics) {
  ++metrics.num_forward_passes;
  metrics.step_times.draft += times.draft;
  metrics.step_times.forward += times.forward;
  metrics.step_times.accept += times.accept;
  metrics.step_times.commit += times.commit;
  metrics.step_times.heads += times.heads;
}

void count_time(Sequence& sequence) {
  sequence.last_token = Clock::now();
  if (sequence.metrics.num_generated_tokens == 0) sequence.first_token = sequence.last_token;
  Metrics& metrics = sequence.metrics;
  metrics.num_generated_tokens = sequence.size() - sequence.prompt_size;
  metrics.time_to_first_token = seconds_between(sequence.submitted, sequence.first_token);
  metrics.decode_time = seconds_between(sequence.first_token, sequence.last_token);
}

// What the sequence has beyond its first `before` tokens. Log probabilities of tokens behind a stop
// token are dropped.
StepOutput output_from(Sequence& sequence, int before) {
  const size_t width = sequence.logprobs_width();
  const auto first = static_cast<size_t>(before - sequence.prompt_size);
  sequence.logprobs.resize(sequence.answer().size() * width);
  StepOutput output{.request_id = sequence.id,
                    .tokens = std::span(sequence.tokens).subspan(before),
                    .finish_reason = sequence.finish_reason,
                    .stop_token = sequence.stop_token,
                    .logprobs = {std::span(sequence.logprobs).subspan(first * width), width},
                    .prompt_logprobs = {}};
  if (first == 0) {
    output.prompt_logprobs = {sequence.prompt_logprobs, sequence.prompt_logprobs_width()};
  }
  return output;
}

}  // namespace

Metrics empty_metrics(int depth, int num_ranks) {
  Metrics metrics;
  metrics.accepted_per_position.resize(depth);
  metrics.rank_histogram.resize(static_cast<size_t>(depth) * num_ranks);
  return metrics;
}

double StepClock::lap() {
  const Clock::time_point before = std::exchange(last_, Clock::now());
  return seconds_between(before, last_);
}

void add_cache_use(const Metrics& request, Metrics& totals) {
  totals.num_cached_tokens += request.num_cached_tokens;
  totals.num_preemptions += request.num_preemptions;
}

void count_pass(StepPlan& plan, const StepTimes& times, Metrics& totals) {
  for (const PlanEntry& entry : plan) add_pass(times, entry.sequence->metrics);
  add_pass(times, totals);
}

StepOutput record(const PlanEntry& entry, const RowBatch& batch, Metrics& totals) {
  Sequence& sequence = *entry.sequence;
  const int before = sequence.size();
  const int kept = append_accepted(entry, batch);
  if (!sequence.finished()) append(sequence, entry.next_root);
  if (before > sequence.prompt_size) {
    count_step(entry, kept, sequence.metrics);
    count_step(entry, kept, totals);
  }
  totals.num_generated_tokens += sequence.size() - before;
  count_time(sequence);
  return output_from(sequence, before);
}

}  // namespace medusa
