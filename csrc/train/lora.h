#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backbone_train_backend.h"
#include "medusa/trainer.h"

namespace medusa {

/// What the adapters of one trainer share while a product runs.
class LoraWorkspace {
 public:
  /// Up to `rows` rows of `columns` inputs, ranks up to `rank` (padded).
  LoraWorkspace(BackboneTrainBackend& backend, int64_t rows, int64_t columns, int64_t rank);

 private:
  friend class Lora;
  void reserve_weights(int64_t elements);  // while no verb is under way

  BackboneTrainBackend& backend_;
  Buffer wide_;        // f32 (rows, rank)
  Buffer low_, grad_;  // C (rows, rank)
  Panels low_panels_, input_panels_;
  Buffer weights_;  // C, of one adapter's larger matrix
};

/// y += scale · x · Aᵀ · Bᵀ beside a frozen product (Hu et al. 2021). A (rank, in), B (out, rank);
/// the rank is padded to 32 with rows and columns that are zero and stay so.
class Lora {
 public:
  static int64_t padded_rank(int64_t rank) { return (rank + 31) / 32 * 32; }

  /// `rows`: those of B that count, in this order and each once (a trimmed vocabulary); empty: all.
  Lora(BackboneTrainBackend& backend, LoraWorkspace& workspace, const Parameter& a,
       const Parameter& b, float scale, std::span<const int32_t> rows = {});

  /// After weights have changed.
  void refresh();
  void forward(Tensor y, Tensor x) const;  // y f32 (rows, padded out), x C
  /// dx f32 (rows, in) (+)= ; adds the gradients of A and B. dy C (rows, padded out).
  void backward(Tensor dx, Tensor dy, Tensor x, bool accumulate) const;

 private:
  Tensor low_rows(Tensor x) const;  // scale · x · Aᵀ in C
  void add_output_gradient(Tensor dy) const;
  Tensor some_rows() const { return {some_rows_.data(), DType::f32, out(), rank_}; }
  int64_t out() const { return rows_.empty() ? b_.shape[0] : static_cast<int64_t>(rows_.size()); }

  BackboneTrainBackend& backend_;
  LoraWorkspace& workspace_;
  const Parameter &a_, &b_;
  float scale_;
  int64_t rank_, in_;
  std::vector<int32_t> rows_;
  Panels a_forward_, a_backward_;  // B = Aᵀ, A
  Panels b_forward_, b_backward_;  // B = Bᵀ, B
  Buffer some_rows_;               // f32 (rows, rank) of B or of its gradient
};

}  // namespace medusa
