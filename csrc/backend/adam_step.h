#pragma once

namespace medusa {

/// Numbers of one AdamW step.
struct AdamStep {
  float beta1, beta2;
  float rest1, rest2;       // 1 - beta, rounded once
  float step_size;          // learning rate / (1 - beta1^t)
  float second_correction;  // sqrt(1 - beta2^t)
  float epsilon;
  float decay;       // 1 - learning rate · weight decay
  float grad_scale;  // gradient clipping
  bool operator==(const AdamStep&) const = default;
};

}  // namespace medusa
