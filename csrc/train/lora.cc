#include "train/lora.h"

#include <algorithm>

namespace medusa {
namespace {

int64_t padded(int64_t n) { return (n + 31) / 32 * 32; }

}  // namespace

LoraWorkspace::LoraWorkspace(BackboneTrainBackend& backend, int64_t rows, int64_t columns,
                             int64_t rank)
    : backend_(backend),
      wide_(backend.allocate(static_cast<size_t>(rows * rank) * sizeof(float))),
      low_(backend.allocate(static_cast<size_t>(rows * rank) * sizeof(float))),
      grad_(backend.allocate(static_cast<size_t>(rows * rank) * sizeof(float))),
      low_panels_(backend.allocate_panels(rows, rank)),
      input_panels_(backend.allocate_panels(rows, columns)) {}

void LoraWorkspace::reserve_weights(int64_t elements) {
  const size_t bytes = static_cast<size_t>(elements) * block_bytes(backend_.compute_dtype());
  if (bytes > weights_.bytes()) weights_ = backend_.allocate(bytes);
}

Lora::Lora(BackboneTrainBackend& backend, LoraWorkspace& workspace, const Parameter& a,
           const Parameter& b, float scale, std::span<const int32_t> rows)
    : backend_(backend),
      workspace_(workspace),
      a_(a),
      b_(b),
      scale_(scale),
      rank_(a.shape[0]),
      in_(a.shape[1]),
      rows_(rows.begin(), rows.end()),
      a_forward_(backend.allocate_panels(in_, rank_)),
      a_backward_(backend.allocate_panels(rank_, in_)),
      b_forward_(backend.allocate_panels(rank_, padded(out()))),
      b_backward_(backend.allocate_panels(padded(out()), rank_)) {
  workspace.reserve_weights(std::max(rank_ * in_, padded(out()) * rank_));
  if (!rows_.empty()) {
    some_rows_ = backend.allocate(rows_.size() * static_cast<size_t>(rank_) * sizeof(float));
  }
}

void Lora::refresh() {
  const DType c = backend_.compute_dtype();
  void* narrow = workspace_.weights_.data();
  const Tensor a{narrow, c, rank_, in_};
  backend_.narrow(a, {a_.weights.data(), DType::f32, rank_, in_});
  backend_.pack_transposed(a_forward_, a);
  backend_.pack(a_backward_, a);
  const Tensor whole{b_.weights.data(), DType::f32, b_.shape[0], rank_};
  const Tensor b{narrow, c, padded(out()), rank_};
  if (b.rows > out()) backend_.zero(b.slice(out(), b.rows - out()));
  if (!rows_.empty()) backend_.gather(some_rows(), 0, whole, rows_);
  backend_.narrow(b.slice(0, out()), rows_.empty() ? whole : some_rows());
  backend_.pack_transposed(b_forward_, b);
  backend_.pack(b_backward_, b);
}

Tensor Lora::low_rows(Tensor x) const {
  const Tensor wide{workspace_.wide_.data(), DType::f32, x.rows, rank_};
  const Tensor low{workspace_.low_.data(), backend_.compute_dtype(), x.rows, rank_};
  backend_.gemm(wide, x, a_forward_, false);
  backend_.scale(low, wide, scale_);
  return low;
}

void Lora::forward(Tensor y, Tensor x) const { backend_.gemm(y, low_rows(x), b_forward_, true); }

// dB += dyᵀ · (scale · x · Aᵀ), dA += (scale · dy · B)ᵀ · x, dx += (scale · dy · B) · A.
void Lora::backward(Tensor dx, Tensor dy, Tensor x, bool accumulate) const {
  Panels& low = workspace_.low_panels_;
  low.inner = x.rows;
  low.columns = rank_;
  backend_.pack(low, low_rows(x));
  add_output_gradient(dy);
  const Tensor wide{workspace_.wide_.data(), DType::f32, x.rows, rank_};
  const Tensor grad{workspace_.grad_.data(), backend_.compute_dtype(), x.rows, rank_};
  backend_.gemm(wide, dy, b_backward_, false);
  backend_.scale(grad, wide, scale_);
  Panels& input = workspace_.input_panels_;
  input.inner = x.rows;
  input.columns = in_;
  backend_.pack(input, x);
  backend_.outer({a_.gradients.data(), DType::f32, rank_, in_}, grad, input, true);
  backend_.gemm(dx, grad, a_backward_, accumulate);
}

void Lora::add_output_gradient(Tensor dy) const {
  if (rows_.empty()) {
    backend_.outer({b_.gradients.data(), DType::f32, out(), rank_}, dy, workspace_.low_panels_,
                   true);
    return;
  }
  backend_.outer(some_rows(), dy, workspace_.low_panels_, false);
  backend_.scatter({b_.gradients.data(), DType::f32, b_.shape[0], rank_}, some_rows(), rows_, true);
}

}  // namespace medusa
