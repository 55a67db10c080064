#pragma once

#include <cstdint>
#include <vector>

#include "backend/row_batch.h"
#include "decode/step_plan.h"
#include "model/kv_cache.h"

namespace medusa {

/// Lays out the rows of a step: prompt chunks as chains, decoding sequences as trees whose node at
/// depth d holds the node's rank among head d - 1's guesses. `logits_rows` lists the rows whose
/// logits acceptance may ask for: every node, and the last row of a finished prompt.
/// `top_k`: guesses kept per head.
void draft(StepPlan& plan, const KvCache& cache, int top_k, RowBatch& batch,
           std::vector<int32_t>& logits_rows);

}  // namespace medusa
