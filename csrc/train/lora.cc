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
  some_rows_.resize(rows_.size() * static_cast<size_t>(rank_));
}

void Lora::refresh() {
  const DType c = backend_.compute_dtype();
  const int64_t most = std::max(rank_ * in_, padded(out()) * rank_);
  const Buffer narrow = backend_.allocate(static_cast<size_t>(most) * block_bytes(c));
  const Tensor a{narrow.data(), c, rank_, in_};
  backend_.narrow(a, {a_.weights.data(), DType::f32, rank_, in_});
  backend_.pack_transposed(a_forward_, a);
  backend_.pack(a_backward_, a);
  const float* weights = b_.weights.data();
  for (size_t i = 0; i < rows_.size(); ++i) {
    std::copy_n(weights + rows_[i] * rank_, rank_,
                some_rows_.begin() + static_cast<int64_t>(i) * rank_);
  }
  if (!rows_.empty()) weights = some_rows_.data();
  const Tensor b{narrow.data(), c, padded(out()), rank_};
  std::fill_n(b.row<char>(out()), b.bytes() - static_cast<size_t>(out()) * b.row_bytes(), 0);
  backend_.narrow(b.slice(0, out()), {const_cast<float*>(weights), DType::f32, out(), rank_});
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
  backend_.outer({some_rows_.data(), DType::f32, out(), rank_}, dy, workspace_.low_panels_, false);
  for (size_t i = 0; i < rows_.size(); ++i) {
    const float* from = some_rows_.data() + static_cast<int64_t>(i) * rank_;
    float* to = b_.gradients.data() + rows_[i] * rank_;
    for (int64_t c = 0; c < rank_; ++c) to[c] += from[c];
  }
}

}  // namespace medusa
