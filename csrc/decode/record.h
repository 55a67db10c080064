#pragma once

#include "backend/row_batch.h"
#include "decode/step_plan.h"

namespace medusa {

/// Appends what a step accepted to the entry's sequence, up to a stop token or the last token it
/// may have, and counts it. Returns the new tokens; none while the prompt goes on.
StepOutput record(const PlanEntry& entry, const RowBatch& batch);

}  // namespace medusa
