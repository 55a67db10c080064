#include "train/backbone_weights.h"

#include <algorithm>

#include "tensor/quants.h"

namespace medusa {

BackboneVector::BackboneVector(BackboneTrainBackend& backend, std::span<const float> loaded,
                               const Parameter* master)
    : loaded_(backend.allocate(loaded.size_bytes())), master_(master) {
  std::copy(loaded.begin(), loaded.end(), static_cast<float*>(loaded_.data()));
  if (master != nullptr) std::copy(loaded.begin(), loaded.end(), master->weights.begin());
}

BackboneMatrix::BackboneMatrix(const FrozenMatrix& stored, const FrozenMatrix& held,
                               const Parameter* master)
    : stored_(stored), loaded_(held), wide_(held), copy_(held), master_(master) {
  if (master == nullptr) return;
  dequantize(master->weights.data(), stored.data, stored.dtype,
             stored.out_features * stored.in_features);
  wide_.data = master->weights.data();
  wide_.dtype = DType::f32;
}

void BackboneMatrix::refresh(BackboneTrainBackend& backend) {
  if (master_ == nullptr) return;
  const DType c = backend.compute_dtype();
  copy_ = wide_;
  if (c == DType::f32) return;
  const int64_t out = wide_.out_features, in = wide_.in_features;
  if (!storage_) storage_ = backend.allocate(static_cast<size_t>(out * in) * block_bytes(c));
  backend.narrow({storage_.data(), c, out, in}, {master_->weights.data(), DType::f32, out, in});
  copy_.data = storage_.data();
  copy_.dtype = c;
}

}  // namespace medusa
