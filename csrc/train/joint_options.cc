#include "train/joint_options.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/check.h"

namespace medusa {

void check_options(const JointTrainerOptions& o) {
  const TrainerOptions& t = o.training;
  check(t.version == 1 || t.version == 2, "version must be 1 or 2, found ", t.version);
  check(t.num_heads >= 1 && t.num_heads <= 32, "num_heads must be 1 to 32, found ", t.num_heads);
  check(t.num_layers >= 1 && t.num_layers <= 32, "num_layers must be 1 to 32, found ",
        t.num_layers);
  check(t.head_decay > 0 && t.head_decay <= 1, "head_decay must be in (0, 1], found ",
        t.head_decay);
  check(t.learning_rate > 0, "learning_rate must be positive, found ", t.learning_rate);
  check(t.weight_decay >= 0, "weight_decay must not be negative, found ", t.weight_decay);
  check(t.max_grad_norm >= 0, "max_grad_norm must not be negative, found ", t.max_grad_norm);
  check(o.heads_only_steps >= 0 && o.heads_only_steps <= t.total_steps,
        "heads_only_steps must be 0 to total_steps, ", t.total_steps, ", found ",
        o.heads_only_steps);
  check(t.warmup_steps >= 0 && t.warmup_steps < t.total_steps, "warmup_steps must be in [0, ",
        t.total_steps, "), found ", t.warmup_steps);
  check(o.heads_learning_rate_multiple > 0, "heads_learning_rate_multiple must be positive, found ",
        o.heads_learning_rate_multiple);
  check(o.heads_coefficient >= 0, "heads_coefficient must not be negative, found ",
        o.heads_coefficient);
  check(o.heads_schedule_ratio > 0 && o.heads_schedule_ratio <= 1,
        "heads_schedule_ratio must be in (0, 1], found ", o.heads_schedule_ratio);
  check(o.lora_rank >= 1 && o.lora_rank <= 1024, "lora_rank must be 1 to 1024, found ",
        o.lora_rank);
  check(o.lora_alpha > 0, "lora_alpha must be positive, found ", o.lora_alpha);
  check(o.lora_dropout >= 0 && o.lora_dropout < 1, "lora_dropout must be in [0, 1), found ",
        o.lora_dropout);
  check(!o.target_modules.empty(), "target_modules must name at least one module");
  check(o.max_rows >= 32 && o.max_rows <= 1 << 20, "max_rows must be 32 to ", 1 << 20, ", found ",
        o.max_rows);
}

float learning_rate(const JointTrainerOptions& options, int64_t step) {
  const TrainerOptions& o = options.training;
  const int64_t alone = options.heads_only_steps;
  const bool first = step <= alone;
  const int64_t at = first ? step : step - alone, total = first ? alone : o.total_steps - alone;
  const int64_t warmup = std::min(o.warmup_steps, total - 1);
  const double rate =
      double{o.learning_rate} * (first ? double{options.heads_learning_rate_multiple} : 1.0);
  if (at <= warmup) {
    return static_cast<float>(rate * static_cast<double>(at) / static_cast<double>(warmup));
  }
  const double progress = static_cast<double>(at - warmup) / static_cast<double>(total - warmup);
  return static_cast<float>(rate * 0.5 *
                            (1 + std::cos(std::numbers::pi * std::min(1.0, progress))));
}

double heads_weight(const JointTrainerOptions& o, int64_t step) {
  const int64_t at = step - o.heads_only_steps;
  if (at <= 0 || o.heads_schedule == HeadsSchedule::constant) return o.heads_coefficient;
  const auto total = static_cast<double>(o.training.total_steps - o.heads_only_steps);
  const double progress =
      std::min(1.0, static_cast<double>(at) / (double{o.heads_schedule_ratio} * total));
  const bool sine = o.heads_schedule == HeadsSchedule::sine;
  return o.heads_coefficient * (sine ? std::sin(std::numbers::pi / 2 * progress) : progress);
}

}  // namespace medusa
