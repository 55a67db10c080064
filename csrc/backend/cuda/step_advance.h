#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/advance.h"
#include "backend/cuda/queue.h"

namespace medusa::cuda {

/// The host's side of Backend::go_on: what the kernel that makes a step's inputs is told.
class StepAdvance {
 public:
  /// Last in a replay. `args` have the step's own arrays: those of embed(), rope(),
  /// tree_attention(), accept() and commit().
  void offer(Queue& queue, const NextStep& next, const RowBatch& batch, AdvanceArgs args);

 private:
  void lay_out(const NextStep& next, const RowBatch& batch);

  std::vector<AdvanceRow> rows_;
  std::vector<AdvanceSequence> sequences_;
  std::vector<int32_t> pages_, stops_;
};

}  // namespace medusa::cuda
