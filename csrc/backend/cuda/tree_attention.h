#pragma once

#include "backend/backend.h"
#include "backend/cuda/advance.h"
#include "backend/cuda/attention_plan.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/queue.h"

namespace medusa::cuda {

/// The host's side of attention: its plan and what goes up for it.
class TreeAttention {
 public:
  /// Backend::tree_attention. Throws DeviceError for a head_dim that no kernel has.
  void run(Queue& queue, Element element, Tensor out, const AttentionInputs& in,
           const RowBatch& batch);

  /// Its part of a step's inputs.
  void add_inputs(const Queue& queue, AdvanceArgs& to) const;

 private:
  AttentionArgs args(Queue& queue, Tensor out, const AttentionInputs& in, const RowBatch& batch);

  AttentionPlan plan_;
  Mirror sequences_, tiles_, positions_, paths_, pages_;
};

}  // namespace medusa::cuda
