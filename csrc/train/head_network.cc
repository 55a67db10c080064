#include "train/head_network.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "base/philox.h"

namespace medusa {
namespace {

/// Uniform in [0, 1), a pure function of both arguments.
double uniform(uint64_t seed, uint32_t index) {
  return philox({index, 0, 0, 0}, seed)[0] * 0x1p-32;
}

}  // namespace

void check_head_options(const TrainerOptions& o) {
  check(o.version == 1 || o.version == 2, "version must be 1 or 2, found ", o.version);
  check(o.num_heads >= 1 && o.num_heads <= 32, "num_heads must be 1 to 32, found ", o.num_heads);
  check(o.num_layers >= 1 && o.num_layers <= 32, "num_layers must be 1 to 32, found ",
        o.num_layers);
  check(o.head_decay > 0 && o.head_decay <= 1, "head_decay must be in (0, 1], found ",
        o.head_decay);
  check(o.weight_decay >= 0 && std::isfinite(o.weight_decay),
        "weight_decay must be finite and not negative, found ", o.weight_decay);
  check(o.max_grad_norm >= 0 && std::isfinite(o.max_grad_norm),
        "max_grad_norm must be finite and not negative, found ", o.max_grad_norm);
  check(o.beta1 >= 0 && o.beta1 < 1, "beta1 must be in [0, 1), found ", o.beta1);
  check(o.beta2 >= 0 && o.beta2 < 1, "beta2 must be in [0, 1), found ", o.beta2);
  check(o.epsilon > 0 && std::isfinite(o.epsilon), "epsilon must be positive and finite, found ",
        o.epsilon);
}

HeadNetwork::HeadNetwork(TrainBackend& backend, const TrainerOptions& options,
                         const HostTensor& lm_head, int64_t input, bool joint)
    : backend_(backend),
      version_(options.version),
      num_heads_(options.num_heads),
      num_layers_(options.num_layers),
      input_cols_(input),
      hidden_(lm_head.shape[1]),
      vocab_(lm_head.shape[0]),
      padded_vocab_(padded_rows(vocab_)),
      dtype_(backend.compute_dtype()),
      joint_(joint),
      parameters_(backend, options, input, hidden_, vocab_) {
  const auto buffer = [&](DType dtype, int64_t rows, int64_t cols) {
    return backend_.allocate(static_cast<size_t>(rows * cols) * block_bytes(dtype));
  };
  layers_.resize(static_cast<size_t>(num_heads_));
  for (std::vector<Layer>& head : layers_) {
    for (int layer = 0; layer < num_layers_; ++layer) {
      head.push_back({.forward = backend_.allocate_panels(width(layer), hidden_),
                      .backward = passes_down(layer)
                                      ? backend_.allocate_panels(hidden_, width(layer))
                                      : Panels{}});
    }
  }
  for (int i = 0; i < (version_ == 1 ? num_heads_ : 1); ++i) {
    projections_.push_back({.forward = backend_.allocate_panels(hidden_, padded_vocab_),
                            .backward = backend_.allocate_panels(padded_vocab_, hidden_)});
  }
  for (int layer = 0; layer < num_layers_; ++layer) {
    states_.push_back(buffer(dtype_, kMaxRows, hidden_));
    sums_.push_back(buffer(DType::f32, kMaxRows, hidden_));
  }
  input_ = buffer(dtype_, kMaxRows, input);
  input_panels_ = backend_.allocate_panels(kMaxRows, input);
  row_panels_ = backend_.allocate_panels(kMaxRows, hidden_);
  logits_ = buffer(DType::f32, kMaxRows, padded_vocab_);
  logits_grad_ = buffer(dtype_, kMaxRows, padded_vocab_);
  state_grad_ = buffer(DType::f32, kMaxRows, hidden_);
  if (joint && input > hidden_) input_grad_ = buffer(DType::f32, kMaxRows, input);
  sum_grad_ = buffer(dtype_, kMaxRows, hidden_);
  transposed_ =
      buffer(dtype_, version_ == 1 ? std::max(padded_vocab_, hidden_) : hidden_, kMaxRows);
  projection_rows_ = buffer(dtype_, padded_vocab_, hidden_);
  layer_rows_ = buffer(dtype_, hidden_, input);
  initialise(lm_head, options.seed);
}

// Residual weights start at zero and biases as torch.nn.Linear's (uniform ±1/√hidden), as in the
// reference; projections start as the backbone's lm_head.
void HeadNetwork::initialise(const HostTensor& lm_head, uint64_t seed) {
  const float* rows = static_cast<const float*>(lm_head.data);
  const double bound = 1 / std::sqrt(static_cast<double>(hidden_));
  uint32_t index = 0;
  for (int head = 0; head < num_heads_; ++head) {
    for (int layer = 0; layer < num_layers_; ++layer) {
      for (float& b : parameters_.bias(head, layer).weights) {
        b = static_cast<float>(bound * (2 * uniform(seed, index++) - 1));
      }
    }
    if (version_ == 1)
      std::copy_n(rows, vocab_ * hidden_, parameters_.projection(head).weights.data());
  }
  if (version_ == 2) {
    std::vector<int64_t> all(static_cast<size_t>(vocab_));
    std::iota(all.begin(), all.end(), 0);
    load_projection(lm_head, all);
  }
  refresh();
}

void HeadNetwork::load_projection(const HostTensor& lm_head, std::span<const int64_t> rows) {
  const Tensor packed = view(projection_rows_, dtype_, padded_vocab_, hidden_);
  backend_.load_rows(packed, 0, lm_head, rows);
  pack_projection(projections_[0], packed);
}

void HeadNetwork::pack_projection(Projection& projection, Tensor packed) {
  backend_.pack_transposed(projection.forward, packed);
  backend_.pack(projection.backward, packed);
}

void HeadNetwork::train_projection(const Parameter& lm_head, std::span<const int32_t> rows) {
  lm_head_ = &lm_head;
  lm_head_ids_.assign(rows.begin(), rows.end());
  const auto bytes = [](int64_t elements, size_t size) {
    return static_cast<size_t>(elements) * size;
  };
  transposed_ =
      backend_.allocate(bytes(std::max(padded_vocab_, hidden_) * kMaxRows, block_bytes(dtype_)));
  if (!rows.empty()) some_rows_ = backend_.allocate(bytes(vocab_ * hidden_, sizeof(float)));
}

// From the master of the lm_head.
void HeadNetwork::refresh_projection() {
  const Tensor all{lm_head_->weights.data(), DType::f32, lm_head_->shape[0], hidden_};
  const Tensor some = some_rows_ ? view(some_rows_, DType::f32, vocab_, hidden_) : all;
  if (some_rows_) backend_.gather(some, 0, all, lm_head_ids_);
  const Tensor packed = view(projection_rows_, dtype_, padded_vocab_, hidden_);
  backend_.narrow(packed.slice(0, vocab_), some);
  pack_projection(projections_[0], packed);
}

void HeadNetwork::refresh() {
  if (lm_head_ != nullptr) refresh_projection();
  for (int head = 0; head < num_heads_; ++head) {
    for (int i = 0; i < num_layers_; ++i) {
      Layer& layer = layers_[static_cast<size_t>(head)][static_cast<size_t>(i)];
      float* weight = parameters_.weight(head, i).weights.data();
      const Tensor rows = view(layer_rows_, dtype_, hidden_, width(i));
      backend_.narrow(rows, {weight, DType::f32, hidden_, width(i)});
      backend_.pack_transposed(layer.forward, rows);
      if (passes_down(i)) backend_.pack(layer.backward, rows);
    }
    if (version_ == 1) {
      float* weights = parameters_.projection(head).weights.data();
      const Tensor packed = view(projection_rows_, dtype_, padded_vocab_, hidden_);
      backend_.narrow(packed.slice(0, vocab_), {weights, DType::f32, vocab_, hidden_});
      pack_projection(projection(head), packed);
    }
  }
}

Tensor HeadNetwork::view(const Buffer& buffer, DType dtype, int64_t rows, int64_t cols) const {
  return {buffer.data(), dtype, rows, cols};
}

Tensor HeadNetwork::input(int64_t rows) const {
  return view(input_, dtype_, padded_rows(rows), input_cols_);
}

Tensor HeadNetwork::state(int layer, int64_t rows) const {
  const Buffer& buffer = layer == 0 ? input_ : states_[static_cast<size_t>(layer) - 1];
  return view(buffer, dtype_, rows, width(layer));
}

void HeadNetwork::begin_chunk(Tensor x) {
  input_panels_.inner = row_panels_.inner = x.rows;
  backend_.pack(input_panels_, x);
}

void HeadNetwork::forward(int head, Tensor x, std::span<const int32_t> targets, float scale,
                          std::span<TargetScore> scores) {
  for (int i = 0; i < num_layers_; ++i) {
    const Tensor sum = view(sums_[static_cast<size_t>(i)], DType::f32, x.rows, hidden_);
    backend_.gemm(sum, state(i, x.rows),
                  layers_[static_cast<size_t>(head)][static_cast<size_t>(i)].forward, false);
    backend_.residual_silu(state(i + 1, x.rows), state(i, x.rows), sum,
                           parameters_.bias(head, i).weights.data());
  }
  const Tensor logits = view(logits_, DType::f32, x.rows, padded_vocab_);
  backend_.gemm(logits, state(num_layers_, x.rows), projection(head).forward, false);
  if (lora_ != nullptr) lora_->forward(logits, state(num_layers_, x.rows));
  backend_.cross_entropy(view(logits_grad_, dtype_, x.rows, padded_vocab_), scores, logits, vocab_,
                         targets, scale);
}

void HeadNetwork::backward(int head, Tensor x) {
  const Tensor logits_grad = view(logits_grad_, dtype_, x.rows, padded_vocab_);
  if (version_ == 1 || lm_head_ != nullptr) projection_gradient(head, logits_grad);
  const Tensor dh = view(state_grad_, DType::f32, x.rows, hidden_);
  backend_.gemm(dh, logits_grad, projection(head).backward, false);  // dh = G · P
  if (lora_ != nullptr) lora_->backward(dh, logits_grad, state(num_layers_, x.rows), true);
  for (int i = num_layers_ - 1; i >= 0; --i) layer_backward(head, i, x, dh);
}

// dP += Gᵀ · h.
void HeadNetwork::projection_gradient(int head, Tensor logits_grad) {
  const int64_t rows = logits_grad.rows;
  backend_.pack(row_panels_, state(num_layers_, rows));
  backend_.transpose(view(transposed_, dtype_, padded_vocab_, rows), logits_grad);
  const Tensor turned = view(transposed_, dtype_, vocab_, rows);
  if (!some_rows_) {
    const Parameter& whole = version_ == 1 ? parameters_.projection(head) : *lm_head_;
    backend_.gemm({whole.gradients.data(), DType::f32, vocab_, hidden_}, turned, row_panels_, true);
    return;
  }
  const Tensor some = view(some_rows_, DType::f32, vocab_, hidden_);
  backend_.gemm(some, turned, row_panels_, false);
  const Tensor all{lm_head_->gradients.data(), DType::f32, lm_head_->shape[0], hidden_};
  backend_.scatter(all, some, lm_head_ids_, true);
}

// dz = dh · silu'(z), dW += dzᵀ · x, dx = dh + dz · W.
void HeadNetwork::layer_backward(int head, int i, Tensor x, Tensor dh) {
  const Tensor dz = view(sum_grad_, dtype_, x.rows, hidden_);
  backend_.silu_backward(dz, parameters_.bias(head, i).gradients.data(), dh,
                         view(sums_[static_cast<size_t>(i)], DType::f32, x.rows, hidden_));
  const Tensor dz_transposed = view(transposed_, dtype_, hidden_, x.rows);
  backend_.transpose(dz_transposed, dz);
  if (i > 0) backend_.pack(row_panels_, state(i, x.rows));
  const Tensor grad{parameters_.weight(head, i).gradients.data(), DType::f32, hidden_, width(i)};
  backend_.gemm(grad, dz_transposed, i > 0 ? row_panels_ : input_panels_, true);
  const Layer& layer = layers_[static_cast<size_t>(head)][static_cast<size_t>(i)];
  if (width(i) == hidden_ && passes_down(i)) backend_.gemm(dh, dz, layer.backward, true);
  if (width(i) > hidden_ && joint_) add_state_columns(dh, dz, layer.backward);
}

// Of a grounded block: what stands behind the state is the embedding's.
void HeadNetwork::add_state_columns(Tensor dh, Tensor dz, const Panels& weight) {
  const Tensor whole = input_gradient(dh.rows);
  backend_.gemm(whole, dz, weight, false);
  backend_.add_columns(dh, whole);
}

Tensor HeadNetwork::input_gradient(int64_t rows) const {
  return view(input_grad_, DType::f32, rows, input_cols_);
}

Tensor HeadNetwork::state_gradient(int64_t rows) const {
  return view(state_grad_, DType::f32, rows, hidden_);
}

}  // namespace medusa
