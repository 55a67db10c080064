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
  values_ = store_.add(DType::f32, rows, top_k);
  roots_ = store_.add(DType::i32, 1, max_rows);
  ids_ = store_.add(DType::i32, rows, top_k);
  tokens_.resize(static_cast<size_t>(rows * top_k));
}

MedusaHeads::MedusaHeads(Backend& backend, const Llama& llama, const Heads::Source& source)
    : lm_head_(&llama.lm_head()),
      embedding_(source.grounded ? &llama.embedding() : nullptr),
      token_map_(source.token_map) {
  check<ModelFormatError>(!source.residual.empty() && !source.residual[0].empty(),
                          "heads: expected at least one head with one layer, found none");
  check_token_map(llama.config().vocab_size);
  place_token_map(backend);
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

void MedusaHeads::place_token_map(Backend& backend) {
  if (token_map_.empty()) return;
  device_token_map_ = backend.allocate(token_map_.size() * sizeof(int32_t));
  backend.upload(device_token_map(), token_map_.data());
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

void MedusaHeads::forward(Backend& backend, Tensor hidden, Tensor roots, int num_heads,
                          HeadsWorkspace& ws, Tensor ids) const {
  Tensor input = hidden;
  if (grounded()) {
    input = ws.grounded_.slice(0, hidden.rows);
    ops::append_embedding(backend, input, hidden, *embedding_, roots);
  }
  const Tensor states = residual_blocks(backend, input, num_heads, ws);
  ops::linear_top_k(backend, ws.values_.slice(0, states.rows), ids, states, projections(num_heads));
}

std::span<const int32_t> MedusaHeads::guess(Backend& backend, Tensor hidden,
                                            std::span<const int32_t> roots, int num_heads,
                                            HeadsWorkspace& ws) const {
  const Tensor at{ws.roots_.data, DType::i32, 1, hidden.rows};
  const Tensor ids = ws.ids_.slice(0, num_heads * hidden.rows);
  backend.upload(at, roots.data());
  forward(backend, hidden, at, num_heads, ws, ids);
  const auto* found = static_cast<const int32_t*>(backend.download(ids));
  const std::span tokens = std::span(ws.tokens_).first(static_cast<size_t>(ids.rows * ids.cols));
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = token(found[i]);
  return tokens;
}

// The states after the last block: (heads · rows, hidden).
Tensor MedusaHeads::residual_blocks(Backend& backend, Tensor input, int num_heads,
                                    HeadsWorkspace& ws) const {
  const int64_t rows = input.rows;
  Tensor state = ws.state_.slice(0, num_heads * rows), next = ws.next_.slice(0, num_heads * rows);
  for (int layer = 0; layer < num_layers(); ++layer) {
    for (int head = 0; head < num_heads; ++head) {
      const Tensor in = layer == 0 ? input : state.slice(head * rows, rows);
      ops::linear(backend, next.slice(head * rows, rows), in, residual_[head][layer],
                  Epilogue::residual_silu);
    }
    std::swap(state, next);
  }
  return state;
}

// Each for an equal share of the states.
std::span<const Weight> MedusaHeads::projections(int num_heads) const {
  if (!projection_.empty()) return std::span(projection_).first(static_cast<size_t>(num_heads));
  return {trimmed_lm_head_.storage ? &trimmed_lm_head_ : lm_head_, 1};
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
