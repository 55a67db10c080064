#pragma once

#include <cstddef>
#include <cstdint>

#include "medusa/joint_trainer.h"

namespace medusa {

/// Throws InvalidArgument naming the option that is out of range.
void check_options(const JointTrainerOptions& options);

/// Which stage a step is in, and its place there, from 1.
struct StageStep {
  size_t stage;
  int64_t step;
};
StageStep locate(const JointTrainerOptions& options, int64_t step);
int64_t total_steps(const JointTrainerOptions& options);

/// Of the step-th step, from 1.
float learning_rate(const JointTrainerOptions& options, int64_t step);
/// heads_coefficient times the schedule.
double heads_weight(const JointTrainerOptions& options, int64_t step);

}  // namespace medusa
