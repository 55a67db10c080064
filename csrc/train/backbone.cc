#include "train/backbone.h"

#include <cmath>

#include "base/check.h"

namespace medusa {

void Backbone::refresh() {
  const auto renew = [&](AdaptedLinear& linear) {
    linear.weight.refresh(backend_);
    if (linear.lora) linear.lora->refresh();
  };
  for (Layer& layer : layers_) {
    for (AdaptedLinear* linear :
         {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
      renew(*linear);
    }
  }
  renew(lm_head_);
}

Tensor Backbone::checkpoint(size_t layer, int64_t rows) const {
  const int64_t hidden = config_.hidden_size;
  auto* data = static_cast<float*>(checkpoints_.data());
  return {data + static_cast<int64_t>(layer) * max_rows_ * hidden, DType::f32, rows, hidden};
}

AttentionShape Backbone::attention_shape() const {
  return {.num_heads = config_.num_attention_heads,
          .num_kv_heads = config_.num_key_value_heads,
          .head_dim = config_.head_dim,
          .sliding_window = config_.sliding_window,
          .scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim))};
}

Dropout Backbone::noise(uint32_t site, const PassOptions& pass) const {
  Dropout own = pass.noise;
  own.site += site;
  return own;
}

Backbone::Input Backbone::drop(const Buffer& whole, const Buffer& dropped, int64_t rows,
                               int64_t cols, uint32_t site, const PassOptions& pass) const {
  const Tensor x = compute(whole, rows, cols);
  if (!pass.trained || pass.noise.probability == 0) return {x, x};
  const Tensor some = compute(dropped, rows, cols);
  backend_.dropout(some, x, noise(site, pass));
  return {x, some};
}

void Backbone::apply(Tensor y, const AdaptedLinear& linear, const Input& x, bool accumulate,
                     const PassOptions& pass) const {
  backend_.linear(y, x.whole, linear.weight.product(pass.trained), accumulate);
  if (!linear.bias.empty()) backend_.add_bias(y, linear.bias.data(pass.trained));
  if (pass.trained && linear.lora) linear.lora->forward(y, x.dropped);
}

// dx = sum of dy · W, and of what goes back through adapters and their dropout.
void Backbone::input_gradient(Tensor dx, std::span<const Branch> branches, const Input& x,
                              uint32_t site, const PassOptions& pass) {
  if (trains_all()) weight_gradients(branches, x.whole);
  const bool drops = x.dropped.data != x.whole.data;
  const Tensor behind = drops ? f32(dropped_grad_, dx.rows, dx.cols) : dx;
  bool any = false;
  for (const Branch& b : branches) {
    backend_.linear_backward(dx, b.dy, b.linear->weight.product(true),
                             b.linear != branches[0].linear);
  }
  for (const Branch& b : branches) {
    if (!b.linear->lora) continue;
    b.linear->lora->backward(behind, b.dy, x.dropped, any || !drops);
    any = true;
  }
  if (any && drops) backend_.add_dropped(dx, behind, noise(site, pass));
}

// dW += dyᵀ · x and db += the rows of dy, for products that share an input.
void Backbone::weight_gradients(std::span<const Branch> branches, Tensor x) {
  inputs_.inner = x.rows;
  inputs_.columns = x.cols;
  backend_.pack(inputs_, x);
  for (const Branch& b : branches) {
    const Parameter& master = *b.linear->weight.master();
    backend_.outer({master.gradients.data(), DType::f32, master.shape[0], x.cols}, b.dy, inputs_,
                   true);
    float* bias = b.linear->bias.gradients();
    if (bias != nullptr) backend_.column_sums(bias, b.dy);
  }
}

void Backbone::lm_head_gradient(Tensor dy, Tensor x) {
  const Branch output[] = {{&lm_head_, dy}};
  weight_gradients(output, x);
}

void Backbone::embedding_gradient(Tensor dx, int64_t first_column,
                                  std::span<const int32_t> tokens) {
  const Parameter& master = *embedding_.master();
  const Tensor sums{master.gradients.data(), DType::f32, master.shape[0], master.shape[1]};
  backend_.embed_backward(sums, dx, first_column, tokens);
}

// dy may be dx.
void Backbone::norm_backward(Tensor dx, Tensor dy, Tensor x, const BackboneVector& norm,
                             bool accumulate) {
  const float eps = config_.rms_norm_eps;
  if (norm.gradients() != nullptr) {
    backend_.rms_norm_weight(norm.gradients(), dy, x, eps);
  }
  backend_.rms_norm_backward(dx, dy, x, norm.data(true), eps, accumulate);
}

// Norm of each head, where there is one, then rotation; raw keeps what was normalised.
void Backbone::turn(Tensor x, Tensor raw, const BackboneVector& norm, const Documents& documents,
                    const PassOptions& pass) const {
  const int64_t d = config_.head_dim;
  if (!norm.empty()) {
    backend_.copy(raw, x);
    const Tensor heads{x.data, DType::f32, x.rows * x.cols / d, d};
    backend_.rms_norm(heads, {raw.data, DType::f32, heads.rows, d}, norm.data(pass.trained),
                      config_.rms_norm_eps);
  }
  backend_.rotate(x, documents.positions, rope(), d, false);
}

void Backbone::turn_back(Tensor dx, Tensor raw, const BackboneVector& norm,
                         const Documents& documents) {
  const int64_t d = config_.head_dim;
  backend_.rotate(dx, documents.positions, rope(), d, true);
  if (norm.empty()) return;
  const Tensor heads{dx.data, DType::f32, dx.rows * dx.cols / d, d};
  norm_backward(heads, heads, {raw.data, DType::f32, heads.rows, d}, norm, false);
}

// x += attention; returns the output product's input.
Backbone::Input Backbone::attend(size_t index, Tensor x, const Documents& documents,
                                 const PassOptions& pass) {
  const Layer& layer = layers_[index];
  const auto site = static_cast<uint32_t>(4 * index);
  const int64_t rows = x.rows;
  const Tensor q = f32(q_, rows, q_cols_), k = f32(k_, rows, kv_cols_), v = f32(v_, rows, kv_cols_);
  backend_.rms_norm(compute(normed_, rows, x.cols), x, layer.input_norm.data(pass.trained),
                    config_.rms_norm_eps);
  const Input in = drop(normed_, dropped_normed_, rows, x.cols, site, pass);
  apply(q, layer.q, in, false, pass);
  apply(k, layer.k, in, false, pass);
  apply(v, layer.v, in, false, pass);
  turn(q, f32(raw_q_, rows, q_cols_), layer.q_norm, documents, pass);
  turn(k, f32(raw_k_, rows, kv_cols_), layer.k_norm, documents, pass);
  backend_.attention(compute(attended_, rows, q_cols_), q, k, v, documents, attention_shape());
  const Input attended = drop(attended_, dropped_attended_, rows, q_cols_, site + 1, pass);
  apply(x, layer.o, attended, true, pass);
  return attended;
}

// Up to the last product's input.
Backbone::Input Backbone::expand(size_t index, Tensor x, const PassOptions& pass) {
  const Layer& layer = layers_[index];
  const auto site = static_cast<uint32_t>(4 * index);
  const int64_t rows = x.rows, inner = config_.intermediate_size;
  const Tensor gate = f32(gate_, rows, inner), up = f32(up_, rows, inner);
  backend_.rms_norm(compute(normed_, rows, x.cols), x, layer.post_attention_norm.data(pass.trained),
                    config_.rms_norm_eps);
  const Input in = drop(normed_, dropped_normed_, rows, x.cols, site + 2, pass);
  apply(gate, layer.gate, in, false, pass);
  apply(up, layer.up, in, false, pass);
  backend_.silu_mul(compute(inner_, rows, inner), gate, up);
  return drop(inner_, dropped_inner_, rows, inner, site + 3, pass);
}

void Backbone::forward(Tensor out, std::span<const int32_t> tokens, const Documents& documents,
                       const PassOptions& pass) {
  const Tensor x = f32(x_, documents.num_rows(), config_.hidden_size);
  backend_.embed(x, embedding_.rows(pass.trained), tokens);
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (pass.keep) backend_.copy(checkpoint(i, x.rows), x);
    attend(i, x, documents, pass);
    apply(x, layers_[i].down, expand(i, x, pass), true, pass);
  }
  if (pass.keep) backend_.copy(checkpoint(layers_.size(), x.rows), x);
  backend_.rms_norm(out, x, final_norm_.data(pass.trained), config_.rms_norm_eps);
}

void Backbone::backward(Tensor dout, std::span<const int32_t> tokens, const Documents& documents,
                        const PassOptions& pass) {
  const Tensor x = f32(x_, dout.rows, dout.cols);
  norm_backward(dout, dout, checkpoint(layers_.size(), dout.rows), final_norm_, false);
  for (size_t i = layers_.size(); i-- > 0;) {
    backend_.copy(x, checkpoint(i, x.rows));
    const Input attended = attend(i, x, documents, pass);
    backward_mlp(i, dout, x, expand(i, x, pass), pass);
    backward_attention(i, dout, attended, documents, pass);
  }
  if (trains_all()) embedding_gradient(dout, 0, tokens);
}

// dx, of the layer's output, becomes that of the MLP's input x.
void Backbone::backward_mlp(size_t index, Tensor dx, Tensor x, const Input& inner,
                            const PassOptions& pass) {
  const Layer& layer = layers_[index];
  const auto site = static_cast<uint32_t>(4 * index);
  const int64_t rows = dx.rows, cols = config_.intermediate_size;
  const Tensor dy = compute(narrow_a_, rows, dx.cols), dinner = f32(wide_grad_, rows, cols);
  backend_.narrow(dy, dx);
  const Branch down[] = {{&layer.down, dy}};
  input_gradient(dinner, down, inner, site + 3, pass);
  const Tensor dgate = compute(narrow_a_, rows, cols), dup = compute(narrow_b_, rows, cols);
  backend_.silu_mul_backward(dgate, dup, dinner, f32(gate_, rows, cols), f32(up_, rows, cols));
  const Tensor dnormed = f32(wide_grad_, rows, dx.cols);
  const Branch branches[] = {{&layer.gate, dgate}, {&layer.up, dup}};
  const Input in{
      compute(normed_, rows, dx.cols),
      compute(inner.dropped.data == inner.whole.data ? normed_ : dropped_normed_, rows, dx.cols)};
  input_gradient(dnormed, branches, in, site + 2, pass);
  norm_backward(dx, dnormed, x, layer.post_attention_norm, true);
}

// dx, of the MLP's input, becomes that of the layer's.
void Backbone::backward_attention(size_t index, Tensor dx, const Input& attended,
                                  const Documents& documents, const PassOptions& pass) {
  const Layer& layer = layers_[index];
  const auto site = static_cast<uint32_t>(4 * index);
  const int64_t rows = dx.rows;
  const Tensor dy = compute(narrow_a_, rows, dx.cols), dout = f32(wide_grad_, rows, q_cols_);
  backend_.narrow(dy, dx);
  const Branch output[] = {{&layer.o, dy}};
  input_gradient(dout, output, attended, site + 1, pass);
  const Tensor dq = f32(dq_, rows, q_cols_), dk = f32(dk_, rows, kv_cols_),
               dv = f32(dv_, rows, kv_cols_);
  backend_.attention_backward(dq, dk, dv, dout, f32(q_, rows, q_cols_), f32(k_, rows, kv_cols_),
                              f32(v_, rows, kv_cols_), documents, attention_shape());
  turn_back(dq, f32(raw_q_, rows, q_cols_), layer.q_norm, documents);
  turn_back(dk, f32(raw_k_, rows, kv_cols_), layer.k_norm, documents);
  const Tensor x = checkpoint(index, rows), normed = compute(normed_, rows, dx.cols);
  backend_.rms_norm(normed, x, layer.input_norm.data(true), config_.rms_norm_eps);
  const Input in = drop(normed_, dropped_normed_, rows, dx.cols, site, pass);
  const Branch branches[] = {{&layer.q, compute(narrow_a_, rows, q_cols_)},
                             {&layer.k, compute(narrow_b_, rows, kv_cols_)},
                             {&layer.v, compute(narrow_c_, rows, kv_cols_)}};
  backend_.narrow(branches[0].dy, dq);
  backend_.narrow(branches[1].dy, dk);
  backend_.narrow(branches[2].dy, dv);
  const Tensor dnormed = f32(wide_grad_, rows, dx.cols);
  input_gradient(dnormed, branches, in, site, pass);
  norm_backward(dx, dnormed, x, layer.input_norm, true);
}

}  // namespace medusa
