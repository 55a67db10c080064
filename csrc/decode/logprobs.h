#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "decode/step_plan.h"
#include "model/llama.h"

namespace medusa {

/// Log probabilities of the requests that ask for them, written into their sequences. Nothing is
/// computed for the others.
class LogprobRecorder {
 public:
  /// `max_rows`: of logits computed at a time.
  explicit LogprobRecorder(int max_rows);

  /// Whether record_accepted() will look at the step's logits.
  static bool wants(const StepPlan& plan);

  /// Of prompt tokens, each from the hidden row before it. Uses the workspace's logits a part at a
  /// time, so it comes after the forward pass and before the logits of the step.
  void record_prompts(Backend& backend, const Llama& llama, StepPlan& plan, int64_t batch_rows,
                      Workspace& workspace);
  /// Of the tokens a step accepted, each from the logits row it was drawn from.
  void record_accepted(Backend& backend, StepPlan& plan, const RowBatch& batch, Tensor logits);

 private:
  void record_chunk(Backend& backend, const Llama& llama, const PlanEntry& entry,
                    int64_t batch_rows, Workspace& workspace);

  size_t max_rows_;
  std::vector<int32_t> batch_rows_;
  std::vector<LogprobRow> rows_;
};

/// Makes room in `sequence` for all it may ever be asked, so that no step allocates.
/// `max_accepted`: tokens one step may add.
void reserve_logprobs(Sequence& sequence, int max_accepted);

}  // namespace medusa
