#pragma once

#include "backend/logits_rules.h"

namespace medusa::cpu {

/// The row that tokens are drawn from: `logits` (vocab) where no rule applies, else `out` (vocab)
/// filled with bias added, penalties taken off, and what cannot be drawn at minus infinity, in
/// this order. `counts` (vocab) is work space.
const float* process_logits(const LogitsRules& rules, const float* logits, int64_t vocab,
                            float* out, int32_t* counts);

}  // namespace medusa::cpu
