#pragma once

#include "backend/row_batch.h"
#include "decode/step_plan.h"

namespace medusa {

/// Appends what a step accepted to the entry's sequence, up to a stop token or the last token it
/// may have, and counts it there and in `totals`. Returns the new tokens.
StepOutput record(const PlanEntry& entry, const RowBatch& batch, Metrics& totals);

/// Counters at zero, with room for trees of `depth` and guesses of `num_ranks` ranks.
Metrics empty_metrics(int depth, int num_ranks);

/// Times the parts of a forward pass one after another.
class StepClock {
 public:
  /// Seconds since the last call, or since construction.
  double lap();

 private:
  Clock::time_point last_ = Clock::now();
};

/// Adds what the cache counted for a request to `totals`.
void add_cache_use(const Metrics& request, Metrics& totals);

/// Counts one forward pass and the time it took for everyone in it, and in `totals`.
void count_pass(StepPlan& plan, const StepTimes& times, Metrics& totals);

}  // namespace medusa
