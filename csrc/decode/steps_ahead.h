#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "decode/step_plan.h"
#include "decode/step_results.h"
#include "model/kv_cache.h"

namespace medusa {

/// Tells a back end that can be ahead of the engine how the next steps follow from the one that is
/// computed. The engine plans each all the same; it only finds it done.
class StepsAhead {
 public:
  StepsAhead(int max_rows, int max_num_seqs);

  /// Last in a step whose plan comes again (Scheduler::repeats) and that the device decides about.
  /// Reserves pages for the steps to come, as far as there are free ones. `top_k`: guesses a head;
  /// `guessed`: sequences that have some, the first among the decisions; `token_map`: of their ids.
  void offer(Backend& backend, StepPlan& plan, const RowBatch& batch, const StepResults& results,
             KvCache& cache, int top_k, int guessed, Tensor token_map);

 private:
  bool add(Backend& backend, const PlanEntry& entry, KvCache& cache, int top_k, int guessed);

  std::vector<NextSequence> sequences_;
  std::vector<int32_t> sources_;  // (rows)
};

}  // namespace medusa
