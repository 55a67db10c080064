#include <cmath>

#include "backend/train_backend.h"

namespace medusa {

AdamStep adam_step(const AdamW& o) {
  const double first_correction = 1 - std::pow(o.beta1, static_cast<double>(o.step));
  const double second_correction = 1 - std::pow(o.beta2, static_cast<double>(o.step));
  return {.beta1 = static_cast<float>(o.beta1),
          .beta2 = static_cast<float>(o.beta2),
          .rest1 = static_cast<float>(1 - o.beta1),
          .rest2 = static_cast<float>(1 - o.beta2),
          .step_size = static_cast<float>(o.learning_rate / first_correction),
          .second_correction = static_cast<float>(std::sqrt(second_correction)),
          .epsilon = o.epsilon,
          .decay = static_cast<float>(1 - double{o.learning_rate} * o.weight_decay),
          .grad_scale = o.grad_scale};
}

}  // namespace medusa
