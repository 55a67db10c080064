#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "backend/backend.h"
#include "medusa/model.h"
#include "model/llama.h"
#include "model/medusa_heads.h"

namespace medusa {

/// What Model, Engine and trainer share. `mutex` is held during every use of the backend.
struct Model::Impl {
  std::shared_ptr<Backend> backend;
  Llama llama;
  std::mutex mutex;

  Impl(std::shared_ptr<Backend> the_backend, const ModelConfig& config, const TensorMap& tensors)
      : backend(std::move(the_backend)), llama(*backend, config, tensors) {}
};

struct Heads::Impl {
  Model model;  // the heads may share its lm_head
  MedusaHeads heads;
};

}  // namespace medusa
