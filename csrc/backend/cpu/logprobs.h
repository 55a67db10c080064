#pragma once

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/sample.h"

namespace medusa::cpu {

/// Fills row.out from one row of logits (vocab): the row's token, then the likeliest ids, best
/// first.
void token_logprobs(const KernelTable& kernels, const LogprobRow& row, const float* logits,
                    int64_t vocab, const SampleScratch& scratch);

}  // namespace medusa::cpu
