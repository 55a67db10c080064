#pragma once

#include <cstdint>
#include <span>

#include "backend/backend.h"
#include "decode/step_plan.h"

namespace medusa {

/// How the token at `position` of a sequence is drawn from logits row `row`: a function of the
/// request, the tokens before and the position alone, so that a draw is the same with and without
/// drafts. `path`: drafted tokens from below the root to the node; it must outlive the result.
SampleRow sample_row(const Sequence& sequence, int64_t row, int position,
                     std::span<const int32_t> path);

/// Throws InvalidArgument naming the parameter that is out of range.
void check_sampling(const SamplingParams& params, int vocab_size);

}  // namespace medusa
