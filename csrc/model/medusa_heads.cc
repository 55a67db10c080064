#include "model/medusa_heads.h"

#include <utility>

#include "backend/ops.h"
#include "base/check.h"
#include "model/load.h"

namespace medusa {

HeadsWorkspace::HeadsWorkspace(Backend& backend, const MedusaHeads& heads, int64_t max_rows,
                               int num_heads, int top_k)
    : store_(backend) {
  const int64_t rows = num_heads * max_rows, hidden = heads.hidden_size();
  if (heads.grounded()) grounded_ = store_.add(backend.compute_dtype(), max_rows, 2 * hidden);
  state_ = store_.add(backend.compute_dtype(), rows, hidden);
  next_ = store_.add(backend.compute_dtype(), rows, hidden);
  logits_ = store_.add(DType::f32, rows, heads.draft_vocab());
  values_ = store_.add(DType::f32, rows, top_k);
  ids_ = store_.add(DType::i32, rows, top_k);
  if (heads.maps_ids()) mapped_.resize(static_cast<size_t>(rows * top_k));
}

MedusaHeads::MedusaHeads(Backend& backend, const Llama& llama, const Heads::Source& source)
    : lm_head_(&llama.lm_head()),
      embedding_(source.grounded ? &llama.embedding() : nullptr),
      token_map_(source.token_map) {
  check<ModelFormatError>(!source.residual.empty() && !source.residual[0].empty(),
                          "heads: expected at least one head with one layer, found none");
  check_token_map(llama.config().vocab_size);
  load_residual(backend, source, llama.config().hidden_size);
  load_projection(backend, llama, source);
}

void MedusaHeads::check_token_map(int vocab_size) const {
  std::vector<bool> seen(vocab_size);
  for (const int32_t token : token_map_) {
    check<ModelFormatError>(token >= 0 && token < vocab_size && !seen[token],
                            "token_map: expected distinct ids below ", vocab_size, ", found ",
                            token);
    seen[token] = true;
  }
}

void MedusaHeads::load_residual(Backend& backend, const Heads::Source& source, int64_t hidden) {
  const size_t num_layers = source.residual[0].size();
  for (size_t head = 0; head < source.residual.size(); ++head) {
    check<ModelFormatError>(source.residual[head].size() == num_layers, "head ", head,
                            ": expected ", num_layers, " layers, found ",
                            source.residual[head].size());
    auto& layers = residual_.emplace_back();
    for (size_t layer = 0; layer < num_layers; ++layer) {
      const Heads::Layer& from = source.residual[head][layer];
      const std::string name = text(head, ".", layer, ".linear");
      const int64_t input = grounded() && layer == 0 ? 2 * hidden : hidden;
      check_shape(from.weight, {hidden, input}, name + ".weight");
      if (from.bias) check_shape(*from.bias, {hidden}, name + ".bias");
      WeightSource packed{.parts = {&from.weight}, .name = name.c_str()};
      if (from.bias) packed.biases = {&*from.bias};
      layers.push_back(backend.prepare_weight(packed));
    }
  }
}

void MedusaHeads::load_projection(Backend& backend, const Llama& llama,
                                  const Heads::Source& source) {
  const int64_t vocab = llama.config().vocab_size, hidden = llama.config().hidden_size;
  draft_vocab_ = token_map_.empty() ? vocab : static_cast<int64_t>(token_map_.size());
  const std::vector<int64_t> shape{draft_vocab_, hidden};
  if (source.projection.empty()) {
    if (token_map_.empty()) return;
    trimmed_lm_head_ = backend.prepare_weight(
        {.packed = &llama.lm_head(), .rows = token_map_, .name = "lm_head.weight"});
    return;
  }
  check<ModelFormatError>(source.projection.size() == residual_.size(), "heads: expected ",
                          residual_.size(), " projections, found ", source.projection.size());
  for (size_t head = 0; head < source.projection.size(); ++head) {
    const std::string name = text(head, ".", num_layers(), ".weight");
    const HostTensor& from = source.projection[head];
    check_shape(from, shape, name);
    projection_.push_back(backend.prepare_weight({.parts = {&from}, .name = name.c_str()}));
  }
}

std::span<const int32_t> MedusaHeads::forward(Backend& backend, Tensor hidden,
                                              std::span<const int32_t> roots, int num_heads,
                                              HeadsWorkspace& ws) const {
  const int64_t rows = num_heads * hidden.rows;
  Tensor input = hidden;
  if (grounded()) {
    input = ws.grounded_.slice(0, hidden.rows);
    ops::append_embedding(backend, input, hidden, *embedding_, roots);
  }
  residual_blocks(backend, input, num_heads, ws);
  project(backend, hidden.rows, num_heads, ws);
  const Tensor ids = ws.ids_.slice(0, rows);
  ops::top_k(backend, ws.values_.slice(0, rows), ids, ws.logits_.slice(0, rows));
  const std::span<const int32_t> best{static_cast<const int32_t*>(backend.download(ids)),
                                      static_cast<size_t>(rows * ids.cols)};
  if (token_map_.empty()) return best;
  for (size_t i = 0; i < best.size(); ++i) ws.mapped_[i] = token_map_[best[i]];
  return std::span(ws.mapped_).first(best.size());
}

void MedusaHeads::residual_blocks(Backend& backend, Tensor input, int num_heads,
                                  HeadsWorkspace& ws) const {
  const int64_t rows = input.rows;
  for (int layer = 0; layer < num_layers(); ++layer) {
    for (int head = 0; head < num_heads; ++head) {
      const Tensor in = layer == 0 ? input : ws.state_.slice(head * rows, rows);
      ops::linear(backend, ws.next_.slice(head * rows, rows), in, residual_[head][layer],
                  Epilogue::residual_silu);
    }
    std::swap(ws.state_, ws.next_);
  }
}

void MedusaHeads::project(Backend& backend, int64_t rows, int num_heads, HeadsWorkspace& ws) const {
  if (projection_.empty()) {
    const int64_t all = num_heads * rows;
    ops::linear(backend, ws.logits_.slice(0, all), ws.state_.slice(0, all), shared_projection(),
                Epilogue::store);
    return;
  }
  for (int head = 0; head < num_heads; ++head) {
    ops::linear(backend, ws.logits_.slice(head * rows, rows), ws.state_.slice(head * rows, rows),
                projection_[head], Epilogue::store);
  }
}

size_t MedusaHeads::weight_bytes() const {
  size_t total = trimmed_lm_head_.bytes();
  for (const auto& layers : residual_) {
    for (const Weight& weight : layers) total += weight.bytes();
  }
  for (const Weight& weight : projection_) total += weight.bytes();
  return total;
}

}  // namespace medusa
