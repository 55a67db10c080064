#pragma once

#include <memory>
#include <span>

#include "backend/backbone_train_backend.h"
#include "medusa/trainer.h"
#include "train/lora.h"

namespace medusa {

/// A norm or a bias, f32: as it was loaded and, where all weights are trained, its master.
class BackboneVector {
 public:
  BackboneVector() = default;  // there is none
  /// `master`: null where it is frozen; begins as what was loaded.
  BackboneVector(BackboneTrainBackend& backend, std::span<const float> loaded,
                 const Parameter* master);

  bool empty() const { return !loaded_; }
  const float* data(bool trained) const {
    return trained && master_ != nullptr ? master_->weights.data()
                                         : static_cast<const float*>(loaded_.data());
  }
  float* gradients() const { return master_ == nullptr ? nullptr : master_->gradients.data(); }

 private:
  Buffer loaded_;
  const Parameter* master_ = nullptr;
};

/// A matrix as it was loaded, held by the back end, and, where all weights are trained, its f32
/// master.
class BackboneMatrix {
 public:
  BackboneMatrix() = default;
  /// As BackboneVector's. `stored` is what the host reads, `held` what the back end does.
  BackboneMatrix(const FrozenMatrix& stored, const FrozenMatrix& held, const Parameter* master);
  /// The same weights under another name.
  BackboneMatrix tied() const { return {stored_, loaded_, master_}; }

  const FrozenMatrix& stored() const { return stored_; }

  /// What products read: of a master a copy in C, which refresh() makes.
  const FrozenMatrix& product(bool trained) const { return trained ? copy_ : loaded_; }
  /// What look-ups of rows read.
  const FrozenMatrix& rows(bool trained) const { return trained ? wide_ : loaded_; }
  const Parameter* master() const { return master_; }
  void refresh(BackboneTrainBackend& backend);

 private:
  FrozenMatrix stored_;
  FrozenMatrix loaded_, wide_, copy_;  // all the same where it is frozen
  const Parameter* master_ = nullptr;
  Buffer storage_;  // of a copy in bf16
};

/// A product with its bias and, perhaps, an adapter.
struct AdaptedLinear {
  BackboneMatrix weight;
  BackboneVector bias;
  std::unique_ptr<Lora> lora;
};

}  // namespace medusa
