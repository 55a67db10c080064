#pragma once

#include <span>

#include "decode/step_plan.h"

namespace medusa {

/// Deals `rows` of a step out to prompts: half of them in order of arrival, so that the oldest
/// always goes on, the rest to whoever needs least, so that a short prompt passes a long one.
/// Fills num_rows of `prompts`, which are in order of arrival.
void share_rows(std::span<PlanEntry> prompts, int rows);

}  // namespace medusa
