#pragma once

#include <cstdint>

#include "medusa/joint_trainer.h"

namespace medusa {

/// Throws InvalidArgument naming the option that is out of range.
void check_options(const JointTrainerOptions& options);

/// Of the step-th step, from 1: warm-up and cosine, once while heads are alone, whose own rate it
/// then is, and once for both.
float learning_rate(const JointTrainerOptions& options, int64_t step);
/// heads_coefficient times the schedule.
double heads_weight(const JointTrainerOptions& options, int64_t step);

}  // namespace medusa
