#include "train/joint_options.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/check.h"
#include "train/head_network.h"

namespace medusa {

namespace {

void check_positive(const char* what, float value) {
  check(value > 0 && std::isfinite(value), what, " must be positive and finite, found ", value);
}

bool all_heads_only(const JointTrainerOptions& o) {
  return std::all_of(o.stages.begin(), o.stages.end(),
                     [](const TrainStage& s) { return s.heads_only; });
}

void check_stages(const JointTrainerOptions& o) {
  check(!o.stages.empty(), "stages must have at least one");
  for (const TrainStage& s : o.stages) {
    check(s.steps >= 1 && s.steps <= int64_t{1} << 40, "steps of a stage must be 1 to ",
          int64_t{1} << 40, ", found ", s.steps);
    check_positive("learning_rate", s.learning_rate);
    check(s.warmup_steps >= 0 && s.warmup_steps < s.steps, "warmup_steps must be in [0, ", s.steps,
          "), the stage's steps, found ", s.warmup_steps);
  }
}

}  // namespace

void check_options(const JointTrainerOptions& o) {
  check_head_options(o.training);
  check_stages(o);
  check_positive("heads_learning_rate_multiple", o.heads_learning_rate_multiple);
  check(o.heads_coefficient >= 0 && std::isfinite(o.heads_coefficient),
        "heads_coefficient must be finite and not negative, found ", o.heads_coefficient);
  check(o.heads_schedule_ratio > 0 && o.heads_schedule_ratio <= 1,
        "heads_schedule_ratio must be in (0, 1], found ", o.heads_schedule_ratio);
  check(o.lora_rank >= 1 && o.lora_rank <= 1024, "lora_rank must be 1 to 1024, found ",
        o.lora_rank);
  check_positive("lora_alpha", o.lora_alpha);
  check(o.lora_dropout >= 0 && o.lora_dropout < 1, "lora_dropout must be in [0, 1), found ",
        o.lora_dropout);
  check(!o.target_modules.empty() || o.all_weights || all_heads_only(o),
        "target_modules must name a module where a stage trains the backbone");
  check(o.target_modules.empty() || !o.all_weights,
        "target_modules must be empty where all_weights are trained, found ",
        o.target_modules.size());
  check(o.max_rows >= 32 && o.max_rows <= 1 << 20, "max_rows must be 32 to ", 1 << 20, ", found ",
        o.max_rows);
}

StageStep locate(const JointTrainerOptions& options, int64_t step) {
  size_t stage = 0;
  for (; stage + 1 < options.stages.size() && step > options.stages[stage].steps; ++stage) {
    step -= options.stages[stage].steps;
  }
  return {stage, step};
}

int64_t total_steps(const JointTrainerOptions& options) {
  int64_t total = 0;
  for (const TrainStage& s : options.stages) total += s.steps;
  return total;
}

float learning_rate(const JointTrainerOptions& options, int64_t step) {
  const StageStep at = locate(options, step);
  const TrainStage& stage = options.stages[at.stage];
  const double rate = stage.learning_rate;
  if (at.step <= stage.warmup_steps) {
    return static_cast<float>(rate * static_cast<double>(at.step) /
                              static_cast<double>(stage.warmup_steps));
  }
  const double progress = std::min(1.0, static_cast<double>(at.step - stage.warmup_steps) /
                                            static_cast<double>(stage.steps - stage.warmup_steps));
  switch (stage.schedule) {
    case RateSchedule::cosine:
      return static_cast<float>(rate * 0.5 * (1 + std::cos(std::numbers::pi * progress)));
    case RateSchedule::linear:
      return static_cast<float>(rate * (1 - progress));
    case RateSchedule::constant:
      break;
  }
  return static_cast<float>(rate);
}

double heads_weight(const JointTrainerOptions& o, int64_t step) {
  if (o.heads_schedule == HeadsSchedule::constant) return o.heads_coefficient;
  const StageStep at = locate(o, step);
  const auto growing =
      double{o.heads_schedule_ratio} * static_cast<double>(o.stages[at.stage].steps);
  const double progress = std::min(1.0, static_cast<double>(at.step) / growing);
  const bool sine = o.heads_schedule == HeadsSchedule::sine;
  return o.heads_coefficient * (sine ? std::sin(std::numbers::pi / 2 * progress) : progress);
}

}  // namespace medusa
